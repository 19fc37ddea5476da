"""`c2f pretrain`, `c2f finetune`, `c2f distill`: the same engine; a spec's task says which objective it has."""

from __future__ import annotations

from c2ftool.cli.options import (
    DeviceName,
    DryRun,
    Gpus,
    Json,
    MicroBatch,
    Overrides,
    Resume,
    Run,
    SpecArgument,
    Traceback,
)


def pretrain(
    spec: SpecArgument,
    overrides: Overrides = None,
    run: Run = None,
    resume: Resume = False,
    gpus: Gpus = None,
    micro_batch: MicroBatch = None,
    device: DeviceName = None,
    dry_run: DryRun = False,
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """Self-supervised training.

    \b
    c2f pretrain specs/eat.yaml
    c2f pretrain specs/eat.yaml data.dataset=esc50 --run eat-esc50
    c2f pretrain specs/papers/eat_as2m_pretrain.yaml --gpus 4 --resume
    """
    _train("pretrain", spec, overrides, run, resume, gpus, micro_batch, device, dry_run, json)


def finetune(
    spec: SpecArgument,
    overrides: Overrides = None,
    run: Run = None,
    resume: Resume = False,
    gpus: Gpus = None,
    micro_batch: MicroBatch = None,
    device: DeviceName = None,
    dry_run: DryRun = False,
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """Supervised training on labels of clips or of frames: the whole model or a linear probe.

    \b
    c2f finetune specs/eat_finetune.yaml
    c2f finetune specs/eat_esc50.yaml
    c2f finetune specs/eat_esc50.yaml data.folds=null data.fold=1 model.freeze=body --run probe
    """
    _train("finetune", spec, overrides, run, resume, gpus, micro_batch, device, dry_run, json)


def distill(
    spec: SpecArgument,
    overrides: Overrides = None,
    run: Run = None,
    resume: Resume = False,
    gpus: Gpus = None,
    micro_batch: MicroBatch = None,
    device: DeviceName = None,
    dry_run: DryRun = False,
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """Supervised training that also learns from an ensemble of trained models.

    The ensemble's averaged logits are stored first, once for all students (C2F_DATA/logits), and read while training.

    \b
    c2f distill specs/sed_student.yaml
    c2f distill specs/sed_student.yaml teachers.0.weight=0.5 --run half
    c2f distill specs/papers/sed/student.yaml --gpus 4 --resume
    """
    _train("distill", spec, overrides, run, resume, gpus, micro_batch, device, dry_run, json)


def _train(
    task: str,
    spec: str,
    overrides: list[str] | None,
    run: str | None,
    resume: bool,
    gpus: int | None,
    micro_batch: int | None,
    device: str | None,
    dry_run: bool,
    json: bool,
) -> None:
    import os
    import sys

    from c2ftool.cli.options import data_root, runs_root
    from c2ftool.errors import UsageError
    from c2ftool.spec.load import load_spec

    loaded = load_spec(spec, overrides or [])
    if loaded.spec.task != task:
        right = " ".join(["c2f", loaded.spec.task, spec, *(overrides or [])])
        raise UsageError(f"{spec} is a {loaded.spec.task} spec, and this is `c2f {task}`", cure=f"Run: {right}")
    if gpus is not None and gpus > 1 and "RANK" not in os.environ and not dry_run:
        from c2ftool.cli.launch import relaunch

        relaunch(gpus)

    from c2ftool.cli import results
    from c2ftool.engine.plan import plan
    from c2ftool.engine.train import Options, train

    options = Options(
        data_root=data_root(),
        runs_root=runs_root(),
        run=run,
        resume=resume,
        micro_batch=micro_batch,
        device=device,
        command=["c2f", *sys.argv[1:]],
        quiet=json,
    )
    if dry_run:
        results.print_plan(plan(loaded, options), json)
    else:
        outcome = train(loaded, options)
        if outcome is not None:  # ranks beside the first have nothing to say
            results.print_outcome(outcome, json)
