"""metrics.jsonl, always; TensorBoard where `tensorboardX` is installed."""

import json
from pathlib import Path
from typing import Any


class MetricWriter:
    """Appends one object per epoch. A resumed run first drops the rows after its checkpoint, so that none is double."""

    def __init__(self, workdir: Path, epochs_done: int):
        self.path = Path(workdir) / "metrics.jsonl"
        rows = self.path.read_text().splitlines() if self.path.exists() else []
        self.path.write_text("".join(f"{row}\n" for row in rows[:epochs_done]))
        self._board = _tensorboard(workdir, epochs_done)

    def write(self, row: dict[str, Any]) -> None:
        """`row` holds `epoch`, `step` and numbers."""
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        if self._board:
            for key, value in row.items():
                if isinstance(value, int | float) and key not in ("epoch", "step"):
                    self._board.add_scalar(key, value, row["step"])
            self._board.flush()

    def close(self) -> None:
        """Closes the TensorBoard file, if there is one."""
        if self._board:
            self._board.close()


def _tensorboard(workdir: Path, epochs_done: int):
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(Path(workdir) / "tensorboard"), filename_suffix=f".{epochs_done}")
