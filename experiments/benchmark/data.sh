#!/usr/bin/env bash
# The benchmark's data, 100,000 rows each, in runs/benchmark_data: experiments/benchmark/data.sh POLICIES
# POLICIES holds npz files of trained policies (docs/data.md): sb3/ from DLR-RM/rl-trained-agents (MIT), d4rl_ant_hierarch_pol.npz from D4RL.
set -euo pipefail
policies=$(cd "${1:?folder of the policies}" && pwd)
cd "$(dirname "$0")/../.."
mkdir -p runs/benchmark_data
make() { ooorl data make "$1" --out "runs/benchmark_data/$2" "${@:3}"; }
make hopper-medium-expert hopper-medium-expert-v2.hdf5 --rows 100000 --policy "$policies/sb3/sac-Hopper.npz" --policy "$policies/sb3/tqc-Hopper.npz"
make halfcheetah-medium-expert halfcheetah-medium-expert-v2.hdf5 --rows 100000 --policy "$policies/sb3/ppo-HalfCheetah.npz" --policy "$policies/sb3/tqc-HalfCheetah.npz"
make walker2d-medium-expert walker2d-medium-expert-v2.hdf5 --rows 100000 --policy "$policies/sb3/ars-Walker2d.npz" --policy "$policies/sb3/tqc-Walker2d.npz"
make maze2d-umaze maze2d-umaze-v1.hdf5 --rows 100000
make antmaze-umaze antmaze-umaze-v2.hdf5 --rows 100000 --policy "$policies/d4rl_ant_hierarch_pol.npz"
make pointmaze-medium-navigate pointmaze-medium-navigate-v0.npz --episodes 100
