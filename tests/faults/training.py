"""Faults of trainings, in their steps, processes, resumes and signals, and on their disks: the tests that hold each."""

from __future__ import annotations

from faults.row import (
    BAD_STEPS,
    CHECKPOINT,
    DISK,
    ENDED,
    FOLDER,
    LIMITS,
    LOADER,
    ORDER,
    RESUMED,
    STOPPED,
    STOPPED_RUNS,
    TRAIN,
    WORKERS,
    Fault,
    of,
)

ROWS = (
    Fault(
        "21",
        "a loss that is not finite",
        "E before the update",
        of(BAD_STEPS, "a_loss_that_is_not_finite_stops_before_the_update"),
    ),
    Fault(
        "22",
        "gradients that overflow",
        "left out, counted; many are E",
        of(BAD_STEPS, "gradients_that_are_not_finite_are_left_out_and_too_many_are_an_error"),
    ),
    Fault(
        "23",
        "a batch that is not the reference batch",
        "the rate is scaled",
        of("engine/test_optim.py", "the_learning_rate_is_in_proportion_to_the_batch"),
    ),
    Fault(
        "24",
        "batch norm with one image a process; frozen norms in training",
        "E; unmoved",
        of(TRAIN, "batch_norm_with_one_image_a_process_is_refused")
        + of("models/backbones/test_norms.py", "a_frozen_norm_has_nothing_to_train_and_stays_frozen_after_train"),
    ),
    Fault(
        "25",
        "a process that has images without objects",
        "as one process",
        of("engine/test_shared_losses.py", "two_processes_have_the_losses_and_gradients_of_one"),
    ),
    Fault(
        "26",
        "a process dies",
        "one line, the others end",
        of(
            "engine/test_distributed.py",
            "the_others_end_soon_when_a_process_dies",
            "no_process_goes_on_without_torchrun",
        ),
    ),
    Fault(
        "26",
        "a process that was killed and not waited for",
        "dead",
        of(ENDED, "a_process_that_was_killed_counts_as_dead_before_its_parent_knows"),
    ),
    Fault(
        "26",
        "an error in one process",
        "the group is not torn down: the others may not answer",
        of(ENDED, "the_group_is_torn_down_only_after_a_normal_end"),
    ),
    Fault(
        "28",
        "SIGKILL of a data worker",
        "E, no step lost",
        of(WORKERS, "a_killed_worker_ends_the_run_in_one_line_and_no_step_is_lost")
        + of(LOADER, "a_killed_worker_is_a_clear_error"),
    ),
    Fault(
        "28",
        "a worker that hangs; too little shared memory; an image that breaks in a worker",
        "E",
        of(
            LOADER,
            "a_worker_that_hangs_is_a_clear_error",
            "a_batch_that_does_not_fit_into_shared_memory_is_a_clear_error",
            "a_broken_image_is_one_clear_error_from_any_worker",
        ),
    ),
    Fault(
        "29",
        "other numbers of workers",
        "the same batches",
        of(LOADER, "workers_do_not_change_the_batches", "seeds_are_fresh_each_epoch_and_belong_to_the_sample"),
    ),
    Fault("30", "a resume at every step", "bit-exact", of(TRAIN, "a_resume_at_every_step_ends_with_the_same_bits")),
    Fault(
        "30",
        "a resume of a model with dropout, which draws from the generators",
        "bit-exact",
        of(RESUMED, "a_resume_goes_on_with_the_same_random_numbers"),
    ),
    Fault(
        "31",
        "a resume with another config, on other data",
        "E with the keys",
        of(TRAIN, "a_resume_with_another_config_names_the_keys", "a_resume_on_other_data_is_refused"),
    ),
    Fault(
        "31",
        "another number of threads or processes, another torch",
        "named warning",
        of(RESUMED, "a_resume_names_what_is_different_here")
        + of(TRAIN, "another_number_of_threads_is_a_warning_with_both"),
    ),
    Fault("32", "whatever has a state", "is saved", of(TRAIN, "everything_with_a_state_is_saved")),
    Fault(
        "32",
        "an evaluation that is worse than the best",
        "best stays",
        of(RESUMED, "a_worse_evaluation_does_not_replace_the_best"),
    ),
    Fault(
        "33",
        "SIGKILL in the middle of a save",
        "the step before is whole",
        of(
            CHECKPOINT,
            "sigkill_in_the_middle_of_saving_leaves_a_sound_checkpoint",
            "leftovers_of_a_killed_process_are_removed",
        ),
    ),
    Fault("33", "SIGKILL at the beginning of a run", "resumed", of(FOLDER, "every_beginning_of_a_run_can_be_resumed")),
    Fault(
        "33",
        "SIGKILL while the drawings of a run are made",
        "drawn again",
        of("predict/test_gallery.py", "after_a_kill_at_any_picture_the_drawings_are_made_again"),
    ),
    Fault(
        "34",
        "the order of writes in a save",
        "synced, then renamed; the manifest last",
        of(
            ORDER,
            "a_checkpoint_gets_its_name_when_its_manifest_is_on_the_disk",
            "a_file_is_synced_before_it_is_renamed",
        ),
    ),
    Fault(
        "35",
        "a damaged newest checkpoint; none that is sound",
        "the one before, said; E",
        of(
            CHECKPOINT,
            "a_damaged_newest_checkpoint_is_skipped_by_name_and_the_one_before_is_taken",
            "no_sound_checkpoint_is_an_error_that_says_why",
        ),
    ),
    Fault(
        "36",
        "a disk that fails at any point of a save",
        "the older checkpoint stays, training goes on",
        of(CHECKPOINT, "a_disk_that_fails_at_any_point_leaves_the_older_checkpoint")
        + of(
            "engine/test_failed_saves.py",
            "training_goes_on_when_a_save_fails",
            "saves_that_fail_again_and_again_are_an_error",
        ),
    ),
    Fault(
        "36",
        "a full disk when the last figures are written",
        "E, evaluated again by a resume",
        of(DISK, "figures_that_cannot_be_written_are_one_line_and_a_resume_writes_them"),
    ),
    Fault(
        "36",
        "a full disk while a line is added to a log",
        "kept until there is room",
        of(DISK, "a_line_that_the_disk_did_not_take_follows_without_loss_or_doubling"),
    ),
    Fault(
        "36",
        "a real full disk (tmpfs) that gets room later",
        "E, then resumed to the same bits",
        of(DISK, "a_full_disk_is_one_line_and_with_room_the_run_ends_as_if_nothing_had_happened"),
    ),
    Fault(
        "37",
        "SIGTERM in training, to one process and to the group",
        "saved, 143, no step lost",
        of(
            STOPPED_RUNS,
            "a_signal_saves_before_leaving_and_the_resumed_run_ends_with_the_same_bits",
            "a_signal_to_the_whole_process_group_loses_no_step_and_exits_143",
        ),
    ),
    Fault(
        "37",
        "SIGTERM during an evaluation: the AP of a part is not recorded",
        "143",
        of(STOPPED, "the_figures_of_a_part_of_the_images_are_never_recorded")
        + of(STOPPED_RUNS, "a_signal_during_an_evaluation_saves_and_the_resumed_run_evaluates"),
    ),
    Fault(
        "37",
        "SIGTERM before the first step, while drawing and while reporting",
        "143",
        of(STOPPED, "a_signal_outside_of_the_steps_is_one_line_and_143"),
    ),
    Fault(
        "37",
        "SIGTERM in any other command; in the evaluation of a saved model",
        "143, no figures of a part",
        of("cli/test_main.py", "a_signal_ends_every_command_in_one_line_and_143")
        + of(STOPPED, "a_signal_ends_an_evaluation_of_a_saved_model_without_figures")
        + of("cli/test_predict.py", "an_interruption_keeps_what_was_predicted"),
    ),
    Fault("37", "a second signal", "leaves at once", of("engine/test_signals.py", "a_second_signal_leaves_at_once")),
    Fault(
        "38",
        "weights with other classes, another depth, a prefix; an empty file",
        "E with what is missing",
        of("weights/test_coverage.py", "the_cause_is_a_prefix", "an_empty_file_is_refused")
        + of(CHECKPOINT, "weights_that_do_not_fit_are_named"),
    ),
    Fault(
        "21",
        "a poisoned weight, image, learning rate",
        "E before the update, with the first module, files, ids and causes",
        of(
            "engine/test_divergence.py",
            "a_poisoned_weight_is_named_with_the_first_module_that_it_reaches",
            "a_poisoned_image_is_named_and_its_batch_is_kept",
            "a_learning_rate_that_is_much_too_high_is_the_first_cause",
        ),
    ),
    Fault(
        "22",
        "float16 gradients that overflow",
        "the scale is halved, no update",
        of(
            "engine/test_length_and_precision.py",
            "a_loss_scale_does_not_change_the_update_and_is_halved_by_an_overflow",
        ),
    ),
    Fault(
        "27",
        "workers that run for epochs over 200,000 records",
        "flat memory",
        of(LIMITS, "the_memory_of_workers_stays_flat_over_epochs_of_many_records"),
    ),
    Fault(
        "28",
        "a real /dev/shm of 64 KB; a real limit of 32 open files",
        "E naming the cause, saved",
        of(LIMITS, "shared_memory_that_is_too_small_is_named", "a_limit_of_open_files_that_is_too_low_is_named"),
    ),
    Fault(
        "28",
        "data workers that are frozen when SIGTERM comes",
        "saved, 143",
        of(LIMITS, "frozen_workers_do_not_keep_a_signal_from_ending_the_run"),
    ),
    Fault(
        "21",
        "a model with weights that are not finite",
        "E in every command, instead of AP 0",
        of(CHECKPOINT, "a_model_that_diverged_is_refused_instead_of_scoring_0"),
    ),
    Fault(
        "33",
        "SIGKILL of a training whose data workers live on for a while",
        "resumed at once",
        of(FOLDER, "a_data_worker_that_outlives_a_killed_training_does_not_keep_its_lock"),
    ),
    Fault(
        "33",
        "SIGKILL while a data set is generated into the cache",
        "the leftover is removed by the next",
        of("test_files.py", "the_working_folder_of_a_killed_process_is_removed_and_that_of_a_living_one_stays"),
    ),
    Fault("35", "train.keep_checkpoints=1", "a warning", of(LIMITS, "a_single_checkpoint_is_a_warning")),
    Fault(
        "36",
        "a full disk when a step that is not finite is written down",
        "E about the step, a warning about the disk",
        of(LIMITS, "a_full_disk_does_not_hide_a_loss_that_is_not_finite"),
    ),
    Fault(
        "34",
        "a power loss at any moment of saves, replayed from the record of what was written and synced",
        "what was saved is sound",
        of(
            "engine/test_power_loss.py",
            "after_a_power_loss_at_any_moment_the_checkpoint_that_was_saved_last_is_sound",
            "a_file_that_is_replaced_has_the_old_content_or_the_new_after_a_power_loss",
        ),
    ),
)
