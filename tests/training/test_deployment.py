"""Which policy to deploy: both answers by hand, and by the command on a finished run."""


