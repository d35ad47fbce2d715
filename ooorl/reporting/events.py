"""TensorBoard events of the rows of a run, written at once.

tensorboardX's own `SummaryWriter` hands events to a thread; once that has met a full disk, whoever gives it more waits for ever.
"""

import time
from pathlib import Path


class Events:
    """One file of events in a folder; whatever goes wrong with it is an OSError where it happens."""

    def __init__(self, folder):
        """Makes `folder` if need be, but not the one around it."""
        from tensorboardX import event_file_writer, summary
        from tensorboardX.proto import event_pb2

        Path(folder).mkdir(exist_ok=True)
        self._file = event_file_writer.EventsWriter(str(Path(folder) / "events"))
        self._event, self._scalar = event_pb2.Event, summary.scalar

    def add(self, tag, value, step):
        """Adds the number that `tag` has at `step`."""
        self._file.write_event(self._event(wall_time=time.time(), step=step, summary=self._scalar(tag, value)))

    def flush(self):
        """Puts all events on the disk."""
        self._file.flush()

    def close(self):
        """Puts all events on the disk and closes the file."""
        self._file.close()
