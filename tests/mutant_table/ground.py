# ruff: noqa: E501 - an edit stays on one line, as the line that it changes does
"""Wrong changes of the ground: wrap and testing."""

from mutant_table.entry import mutants

TABLE = [
    *mutants(
        'wrap.py', ('test_wrap.py', 'test_seams.py'),
        ('agent and signal share a key', 'agent_key, signal_key = jax.random.split(key)\n        signal_state', 'agent_key = signal_key = key\n        signal_state'),
        ('agent and signal begin with one key', 'agent_key, signal_key = jax.random.split(key)\n        return', 'agent_key = signal_key = key\n        return'),
        ('the signal is not kept', 'return RelabelledState(agent_state, signal_state), metrics | own', 'return RelabelledState(agent_state, state.signal), metrics | own'),
        ('the batch is not edited', 'agent.update(state.agent, relabel(batch, score), agent_key)', 'agent.update(state.agent, batch, agent_key)'),
        ('only the agent is told of data', 'signal.observe(state.signal, transitions))', 'state.signal)'),
        ('nobody is told of data', 'observe=ignore_data if quiet else observe', 'observe=ignore_data'),
        ('sees without the score', 'agent.sees(state.agent, relabel(batch, signal.score(state.signal, batch)))', 'agent.sees(state.agent, batch)'),
        ('a bonus replaces another', "batch.extras.get('bonus', 0.0) + scale * score", 'scale * score'),
        ('a bonus without its scale', "batch.extras.get('bonus', 0.0) + scale * score", "batch.extras.get('bonus', 0.0) + score"),
        ('edited: sees the raw batch', 'sees=lambda state, batch: agent.sees(state, edit(batch)),', 'sees=agent.sees,'),
        ('edited: columns are forgotten', 'reads=tuple(dict.fromkeys((*agent.reads, *reads)))', 'reads=agent.reads'),
        ('shift before scale', 'reward=scale * batch.reward + shift', 'reward=scale * (batch.reward + shift)'),
        ('range without the shift', 'extras[name] = scale * extras[name] + shift', 'extras[name] = scale * extras[name]'),
        ('returns without the horizon', "+ shift * extras['discounted_horizon']", '+ shift'),
        ('the horizon is not asked for', "('discounted_horizon',) if 'return_to_go' in agent.reads else ()", '()'),
        ('terminal reversed', '(batch.reward != reward)', '(batch.reward == reward)'),
        ('bounds without the horizon', 'outer(batch.extras[name], batch.extras[name] * horizon)', 'batch.extras[name]'),
        ('bounds of endless values only', 'outer(batch.extras[name], batch.extras[name] * horizon)', 'batch.extras[name] * horizon'),
        ('bounds swapped', 'value_low=least, value_high=most', 'value_low=most, value_high=least'),
        ('horizon of gamma', '0.0 if endless else 1.0 / (1.0 - gamma)', '0.0 if endless else gamma / (1.0 - gamma)'),
        ('normalised: not centred', 'return (observation - centre) / scale', 'return observation / scale'),
        ('normalised: successors raw', 'next_observation=norm(state, batch.next_observation)', 'next_observation=batch.next_observation'),
        ('normalised: observe is told raw rows', 'agent.observe(state.agent, edit(state, transitions))', 'agent.observe(state.agent, transitions)'),
        ('normalised: q is given raw rows', 'agent.q(state.agent, norm(state, obs), action)', 'agent.q(state.agent, obs, action)'),
        ('normalised: acts on raw rows', 'agent.sample_action(state.agent, norm(state, obs), key)', 'agent.sample_action(state.agent, obs, key)'),
        ('normalised: deployed on raw rows', 'agent.best_action(state.agent, norm(state, obs), key)', 'agent.best_action(state.agent, obs, key)'),
        ('normalised: sees raw rows', 'agent.sees(state.agent, edit(state, batch)),\n        q', 'agent.sees(state.agent, batch),\n        q'),
        ('reranked: the worst', 'best = values.argmax(axis=0)', 'best = values.argmin(axis=0)'),
        ('reranked: one draw many times', 'keys = jax.random.split(key, num_candidates)', 'keys = jax.numpy.stack([key] * num_candidates)'),
    ),
]
