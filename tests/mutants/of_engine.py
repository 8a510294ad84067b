"""Mutants of checkpoints, of samplers, and of the engine's promises about faults."""

from faults.row import CHECKPOINT, ENDED, ORDER, REFUSED, RESUMED, STOPPED
from mutants.mutant import mutants

POWER_LOSS = (
    "engine/test_power_loss.py::test_after_a_power_loss_at_any_moment_the_checkpoint_that_was_saved_last_is_sound"
)
WRITE_MANIFEST = (
    '        write_synced(temporary / MANIFEST, json.dumps({"step": step, "files": files}, indent=1).encode())\n'
)

# The twelve that a first search found unnoticed.
UNNOTICED = (
    *mutants(
        "resdet/engine/task/best.py",
        "engine/test_task.py::test_only_a_better_figure_is_the_best "
        f"{RESUMED}::test_a_worse_evaluation_does_not_replace_the_best",
        ("return value > best if self.higher_is_better", "return True if self.higher_is_better"),
        ("else value < best", "else value > best"),
        ("return value is not None", "return True"),
    ),
    *mutants(
        "resdet/engine/train/state.py",
        f"{RESUMED}::test_a_resume_goes_on_with_the_same_random_numbers",
        ('    torch.set_rng_state(states["cpu"])\n', ""),
    ),
    *mutants(
        "resdet/engine/train/state.py",
        f"{RESUMED}::test_a_resume_names_what_is_different_here",
        ('here = {"world_size": world.size, ', "here = {"),
        (', "torch": str(torch.__version__)}\n        warnings', "}\n        warnings"),
    ),
    *mutants(
        "resdet/engine/train/state.py",
        "engine/test_train.py::test_another_number_of_threads_is_a_warning_with_both",
        ('"world_size": world.size, "threads": torch.get_num_threads(), ', '"world_size": world.size, '),
    ),
    *mutants(
        "resdet/engine/train/optimizers.py",
        "engine/test_bad_steps.py::test_a_loss_that_is_not_finite_stops_before_the_update",
        ("    elif finite:\n", "    else:\n"),
    ),
    *mutants(
        "resdet/engine/checkpoint.py",
        f"{ORDER}::test_a_checkpoint_gets_its_name_when_its_manifest_is_on_the_disk",
        (
            f"{WRITE_MANIFEST}        sync_folder(temporary)\n",
            f"        sync_folder(temporary)\n{WRITE_MANIFEST}",
        ),
        ("        sync_folder(temporary)\n", ""),
        (
            "        for name, data in contents.items():\n            write_synced(temporary / name, data)\n",
            "        write_synced(temporary / MANIFEST, b'')\n"
            "        for name, data in contents.items():\n            write_synced(temporary / name, data)\n",
        ),
        (
            "        temporary.rename(target)\n        sync_folder(target.parent)\n",
            "        temporary.rename(target)\n",
        ),
    ),
    *mutants(
        "resdet/files.py",
        f"{ORDER}::test_a_file_is_synced_before_it_is_renamed",
        ("        _sync(temporary)\n        temporary.replace(path)\n", "        temporary.replace(path)\n"),
        ("        temporary.replace(path)\n        sync_folder(path.parent)\n", "        temporary.replace(path)\n"),
    ),
    *mutants(
        "resdet/engine/evaluate/detections.py",
        f"{STOPPED}::test_the_figures_of_a_part_of_the_images_are_never_recorded",
        ("raise Interrupted", "pass"),
    ),
    *mutants(
        "resdet/engine/distributed.py",
        f"{ENDED}::test_the_group_is_torn_down_only_after_a_normal_end",
        (
            "        yield world\n        _ = world.any",
            "        try:\n            yield world\n        finally:\n            dist.destroy_process_group()\n"
            "        _ = world.any",
        ),
    ),
    *mutants(
        "resdet/cli/check_data.py",
        f"{REFUSED}::test_strict_makes_an_error_of_what_is_skipped",
        ("if args.strict and notes.row_count:", "if args.strict and not notes.row_count:"),
    ),
    *mutants(
        "resdet/engine/task/detection.py",
        f"{REFUSED}::test_train_and_val_must_list_the_same_categories",
        ("    if different:\n        number, name", "    if not different:\n        number, name"),
        (
            "zip(data.category_ids.tolist(), data.class_names, strict=True) for data",
            "zip(data.category_ids.tolist(), data.category_ids, strict=True) for data",
        ),
    ),
)

MUTANTS = (
    *UNNOTICED,
    *mutants(
        "resdet/engine/checkpoint.py",
        CHECKPOINT,
        ('if size != expected["bytes"]:', "if size < 0:"),
        ('hexdigest() != expected["sha256"]', 'hexdigest() == ""'),
        ("old[:-keep]", "old[: -keep - 1]"),
        ("if path.name != RunFiles(run).best():", "if path.name:"),
        ("path.name <= checkpoint_path(run, step).name]", "path.name]"),
        ("for path in reversed(checkpoints(run)):", "for path in checkpoints(run):"),
        ("    remove_leftovers(run)\n    temporary", "    temporary"),
        ("weights[name].shape != tensor.shape", "weights[name].ndim != tensor.ndim"),
        ('(f"{name} is missing" for name in own if name not in weights)', "()"),
        ("for name in weights if name not in own)", "for name in weights if name is own)"),
        ("0 < len(class_names) == len(category_ids)", "0 < len(class_names)"),
        ("        shutil.rmtree(temporary, ignore_errors=True)\n        raise", "        raise"),
        ("        if target.exists():  #", "        if not target.exists():  #"),
        ("(model.parent / MANIFEST).exists() and (fault := damage(model.parent))", "(fault := None)"),
        ('"step" not in state', '"step" in state'),
        ("for name in (MODEL, STATE):", "for name in (MODEL,):"),
    ),
    *mutants(
        "resdet/weights/read.py",
        CHECKPOINT,
        ("        _check_archive(path)\n", "        pass\n"),
        ("weights_only=True", "weights_only=False"),
    ),
    *mutants(
        "resdet/engine/checkpoint.py",
        f"{CHECKPOINT} predict/test_load.py engine/test_best.py",
        ("path.name > checkpoint_path(run, after).name", "path.name >= checkpoint_path(run, after).name"),
        ("        (run / BEST).unlink()\n", "        pass\n"),
        ("if path.name == LAST:", "if path.name == BEST:"),
        ('return file, [f"{error}; the newest is taken", *skipped]', "return file, skipped"),
    ),
    *mutants(
        "resdet/data/batches/samplers.py",
        "data/batches/test_samplers.py data/batches/test_loader.py",
        ('f"{seed} {epoch} {index}"', 'f"{seed} {index}"'),
        ('f"{seed} {epoch} {index}"', 'f"{epoch} {index}"'),
        ("digest_size=4", "digest_size=8"),
        ("default_rng([self.seed, epoch])", "default_rng([self.seed])"),
        ("default_rng([self.seed, epoch])", "default_rng([epoch])"),
        ("-len(order) % self.batch_size)", "0)"),
        ("batches[rng.permutation(len(batches))]", "batches"),
        ("self.epoch(epoch)[position:]", "self.epoch(epoch)"),
        ("epoch, position = epoch + 1, 0", "epoch, position = epoch + 1, position"),
        ("batch[rank * share : (rank + 1) * share]", "batch[rank::world_size][:share]"),
        ("len(member) - len(member) % self.batch_size for member", "len(member) for member"),
        ("widths > heights, widths / heights", "widths > heights"),
        ("-(-self.images_per_epoch // self.batch_size)", "self.images_per_epoch // self.batch_size"),
    ),
    *mutants(
        "resdet/files.py",
        POWER_LOSS,
        ("        sync_folder(place.parent)\n", "        pass\n"),
    ),
    *mutants(
        "resdet/engine/checkpoint.py",
        POWER_LOSS,
        ("            leftover.rename(target)\n", "            pass\n"),
        ("if not target.exists() and damage(leftover) is None:", "if not target.exists():"),
    ),
    *mutants(
        "resdet/data/images/decode.py",
        "data/images/test_decode.py::test_a_jpeg_that_lost_its_end_is_refused_although_it_has_its_end_marker "
        "data/images/test_decode.py::test_alpha_takes_little_more_memory_than_the_image",
        ('LOST = ("premature end of", ', "LOST = ("),
        ("MIXED_ROWS = 64", "MIXED_ROWS = 10**6"),
        ("mixed[top : top + MIXED_ROWS] = np.rint(", "mixed[top : top + MIXED_ROWS] = np.floor("),
    ),
)
