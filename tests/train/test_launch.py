"""Workers as processes: what a person reads when one of them fails."""

from pathlib import Path

import pytest

from openk2.core import UserError
from openk2.train.launch import train_in_workers
from openk2.train.recipe import SftConfig
from openk2.train.worker import Job


def test_a_worker_that_fails_is_one_sentence_and_a_log(tmp_path: Path) -> None:
    job = Job(
        folder=tmp_path / "sft",
        sft=SftConfig(tokens=100_000, lr=0.01, warmup_steps=0),
        seed=0,
        workers=1,
        device="cpu",
        model={"hidden_size": "wide"},
        start_from=None,
        train_shards=tmp_path,
        valid_shards=tmp_path,
        pad_id=0,
        identity="",
        scratch=tmp_path / "sft" / ".workers-1",
    )
    with pytest.raises(
        UserError, match=r"training worker 0 failed \(.*worker-error\.log has the whole of it"
    ) as caught:
        train_in_workers(job, lambda event: None)
    assert "\n" not in str(caught.value)
    assert "Traceback" in (tmp_path / "sft" / "worker-error.log").read_text()
    assert not job.scratch.exists()
