"""SHA-256 of D4RL's files as somebody else has recorded them, by their place below `offline_rl/`. Imports nothing.

Source: checksums.tsv of tensorflow/datasets, tensorflow_datasets/d4rl. No file was fetched here to compare with; those of
hopper_medium-v2 and of antmaze-umaze-v2 agree with what other projects recorded of the server's files in 2026.
"""

KNOWN = {
    "gym_mujoco_v2/hopper_expert-v2.hdf5": "01aa219a5f8eea5e639eccdc636ec2bf40e317159a95cf4bf6e985f16909941b",
    "gym_mujoco_v2/hopper_full_replay-v2.hdf5": "56baf95963c51c1e964049a974566c50ba80f289390565523e60c0ba83e0982e",
    "gym_mujoco_v2/hopper_medium-v2.hdf5": "5bdf1bc4a713c82941de44633df669b36c89850b652a25985166796d25cf71a0",
    "gym_mujoco_v2/hopper_medium_expert-v2.hdf5": "9d51ad87f8c905be3880d84c6140bcdb7fbf39a19e046a237f238ba34fec9e26",
    "gym_mujoco_v2/hopper_medium_replay-v2.hdf5": "e121c5f7c9857a307baa9edc6a2c3b48e85fedb9ac316ecddd0f48ca7ef4e39b",
    "gym_mujoco_v2/hopper_random-v2.hdf5": "63103ef7059db4c0819bd054f4e83ff339030b50bcdb46bdbe50385f234b5054",
    "gym_mujoco_v2/halfcheetah_expert-v2.hdf5": "d9fe53bb994eb1e20a99b4fa3412cd76a1bb7966a7ff55e0fcbdd6081bd2965f",
    "gym_mujoco_v2/halfcheetah_full_replay-v2.hdf5": "27fdf7ea86e5a2cbd24d611ae9e703c86ec2e8e52823abc69dd9af6afb3a36c0",
    "gym_mujoco_v2/halfcheetah_medium-v2.hdf5": "41324e8487a9556d8cfa4538827f8937f4d63dae3030825ebc9f3a726ed08ca0",
    "gym_mujoco_v2/halfcheetah_medium_expert-v2.hdf5": "015db75dae5bbe8e94029b71fa0bafc2073365df0c94744e71031189f3f79c06",
    "gym_mujoco_v2/halfcheetah_medium_replay-v2.hdf5": "48d494a4770c11f48260736dec090b78bdca8375647ed4d24bfa5b6610c7f683",
    "gym_mujoco_v2/halfcheetah_random-v2.hdf5": "25407aef85b5d16c0f36b4149341edb4acc6a9e88c1db529b2de19e7464874ba",
    "gym_mujoco_v2/walker2d_expert-v2.hdf5": "2985dc3d436a8baa10e8f43f946fe1d7c6337a4e4fbc65def70618093b18c59a",
    "gym_mujoco_v2/walker2d_full_replay-v2.hdf5": "f2720f9d27b2acef6ec9a7d9ad3b80b6c2078ad4467cee668a81e3b3c80bcf2a",
    "gym_mujoco_v2/walker2d_medium-v2.hdf5": "cf00f43add04c17fdfc2958dd581dea0851b2e5bedbe6fda073758a8f841aeda",
    "gym_mujoco_v2/walker2d_medium_expert-v2.hdf5": "6b8d7f868c45bbaedf460be797fb7271b46dee6ebe45fe7a64319f2005b59a04",
    "gym_mujoco_v2/walker2d_medium_replay-v2.hdf5": "e75de96a4f77acf7d4e0d6fdf0d7ccb177c26c44bb4388e4fd99f543ccfa18db",
    "gym_mujoco_v2/walker2d_random-v2.hdf5": "4e863bb6090cf4a461548bd470564b32f1ae5b32ef3085f816b2ede7f092e7fa",
    "gym_mujoco_v2/ant_expert-v2.hdf5": "fa22531ca79ea051006fa48bb652120d2e12c813919c530369a03c2688311b0f",
    "gym_mujoco_v2/ant_full_replay-v2.hdf5": "b95b0a7f34b1d5d1bedfded0f8e9cfc508b59de83cd4cbfb65b18dbd5056f26c",
    "gym_mujoco_v2/ant_medium-v2.hdf5": "461c03b9f70f40d66b47608a92965e4ef3642bd9cdb1320d10acc92754167137",
    "gym_mujoco_v2/ant_medium_expert-v2.hdf5": "8cfb64e62d8944b5d9dada5f0cfc13a295fafe0c6ba58b778e32ebf16c95aef1",
    "gym_mujoco_v2/ant_medium_replay-v2.hdf5": "844c4e5743ef51091f2106a3570b257fb149032c4743f8a5f02f40adc3b42a46",
    "gym_mujoco_v2/ant_random-v2.hdf5": "93cc10893eed2b8e17f81d1aa51dc23d27c5ca101a3804249f6bd038c6f06055",
    "ant_maze_new/Ant_maze_big-maze_noisy_multistart_True_multigoal_False_sparse.hdf5": (
        "527385c14b87892e8c222c43246546d6cd461fa2a5476d0b3b105ae422b7637c"
    ),
    "ant_maze_new/Ant_maze_big-maze_noisy_multistart_True_multigoal_True_sparse.hdf5": (
        "b77764cac90c23e09905539c49ceb3949b49c5b39eb9d51788cc64b9dd0a2c0d"
    ),
    "ant_maze_new/Ant_maze_hardest-maze_noisy_multistart_True_multigoal_False_sparse.hdf5": (
        "e37afef5b80b968b30cad2682f9a93ee1b400e3b58c7a7f45e7d425d03a2b03d"
    ),
    "ant_maze_new/Ant_maze_hardest-maze_noisy_multistart_True_multigoal_True_sparse.hdf5": (
        "dda7acbdde1a94a14aa7b06a7e5d8141e60a03ccdc4578bff34b0444425bf11d"
    ),
    "ant_maze_new/Ant_maze_u-maze_noisy_multistart_False_multigoal_False_sparse.hdf5": (
        "188838316eab5882fa0e1dc8398b5e79772f64f27f0b78d6aebe838402a720c6"
    ),
    "ant_maze_new/Ant_maze_u-maze_noisy_multistart_True_multigoal_True_sparse.hdf5": (
        "4aff7f77b97a8dd62e513cac8f57da7cdb458cfac7ac0cec3081b7765f2da59d"
    ),
    "ant_maze_v2/Ant_maze_big-maze_noisy_multistart_True_multigoal_True_sparse_fixed.hdf5": (
        "ad9dcbac05d1f8744a7a216083f513662f43f64f28a4a5eb225e9811902dfae7"
    ),
    "ant_maze_v2/Ant_maze_hardest-maze_noisy_multistart_True_multigoal_False_sparse_fixed.hdf5": (
        "6d353df2457829925d7f9d4b0215587469908bd57478ea76f16417cfa944f471"
    ),
    "ant_maze_v2/Ant_maze_hardest-maze_noisy_multistart_True_multigoal_True_sparse_fixed.hdf5": (
        "84f775eb7956ea9cc766704710dc520a8ab357adc7522ade47f556f0e335e284"
    ),
    "ant_maze_v2/Ant_maze_u-maze_noisy_multistart_False_multigoal_False_sparse_fixed.hdf5": (
        "5ef15257771c50ef4d23c7de001750e96c8bb5d9b6a5e4a821dcfb3065fbd130"
    ),
    "ant_maze_v2/Ant_maze_u-maze_noisy_multistart_True_multigoal_True_sparse_fixed.hdf5": (
        "c771dd63963cd7d9f55f24a6d809064f6b82250a6aeac4c9d13f9a1d06e8c932"
    ),
    "hand_dapg_v1/door-cloned-v1.hdf5": "1f6a60ecc4d2a2e5c02f41dd3412be61bb265a33dcf120ceee9e9682d4fe4d48",
    "hand_dapg_v1/door-expert-v1.hdf5": "66df4cd4e0a1e0b72ea72653ce088e29ecbfa99bac3cd2b52e64092e9a0aaab4",
    "hand_dapg_v1/door-human-v1.hdf5": "f9691288c3ddf2b4e7b31bdae0d8444b80ba035515495f8a902d60c43ee09370",
    "hand_dapg_v1/hammer-cloned-v1.hdf5": "e48d75b159bdd72f51d3f01448d3eca4d38275714e11e995c14a36f6cf159db3",
    "hand_dapg_v1/hammer-expert-v1.hdf5": "1c069a0f6e4852493023c77dc3b3a12d8d5ac2e3a034827fea3ab8a161e7185f",
    "hand_dapg_v1/hammer-human-v1.hdf5": "3e42f3f49b5c92a901601dfe867c6c62a9651cbe79f6760ec8b402a15816a498",
    "hand_dapg_v1/pen-cloned-v1.hdf5": "6d1a982cee1950501bedebbddedbcbb377e6284d379986c83abac8a6c0be0c22",
    "hand_dapg_v1/pen-expert-v1.hdf5": "3791b8ca6a802061770af2977c051ac3ae261488210ce73788760a5b8308f374",
    "hand_dapg_v1/pen-human-v1.hdf5": "209e345b2150b633f30a11612612c60f49e941f127ce6c4dc0cd790501c46f9f",
}
