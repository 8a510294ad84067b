"""The table of faults: what is provoked, the verdict, and the tests that hold it, which `pytest -m fault` runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).parent


@dataclass(frozen=True)
class Fault:
    """A row of the list of faults. A test is written as file::name below tests/; a row may have none yet."""

    row: str
    fault: str
    verdict: str
    tests: tuple[str, ...] = ()


COCO = "data/sets/test_coco.py"
DECODE = "data/images/test_decode.py"
FAULTS = "engine/test_faults.py"
LIMITS = "engine/test_limits.py"
LOADER = "data/batches/test_loader.py"
CHECKPOINT = "engine/test_checkpoint.py"
TRAIN = "engine/test_train.py"
READ = "weights/test_read.py"
PICKLE = "weights/test_safe_pickle.py"


def of(file: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{file}::test_{name}" for name in names)


ROWS = (
    Fault("1", "a box without area, a negative side", "S", of(COCO, "the_counts_of_the_report_add_up")),
    Fault("1", "the same under check-data --strict", "E", of(FAULTS, "strict_makes_an_error_of_what_is_skipped")),
    Fault("2", "NaN, Infinity in a box, a polygon, an area", "E", of(COCO, "numbers_that_are_none_are_pointed_at")),
    Fault(
        "2, 7, 14",
        "1e308, 2^70, unknown and negative category ids, run lengths that do not fit their image",
        "E",
        of(COCO, "what_an_annotation_cannot_mean_is_an_error_that_names_it"),
    ),
    Fault("3", "a box that hangs over its image, a box outside", "F, S", of(COCO, "the_counts_of_the_report_add_up")),
    Fault(
        "3",
        "the same in scoring",
        "F, as in training",
        of("coco/test_ground_truth.py", "a_box_that_hangs_over_is_scored_as_trained_unless_asked_otherwise"),
    ),
    Fault("4", "corners given for sizes", "E with a hint", of(COCO, "corners_given_for_sizes_are_recognized")),
    Fault(
        "5",
        "images without objects, all without",
        "trained on, E",
        of(COCO, "images_without_objects_are_fine_unless_all_are"),
    ),
    Fault("6", "an image of crowd alone", "kept, counted", of(COCO, "an_image_of_crowd_alone_is_kept_and_counted")),
    Fault("8", "ids that are neither dense nor sorted", "mapped", of(COCO, "labels_follow_ascending_category_ids")),
    Fault("8", "negative category ids", "mapped", of("coco/test_reader.py", "no_category_id_is_special")),
    Fault("9", "train and val list other categories", "E", of(FAULTS, "train_and_val_must_list_the_same_categories")),
    Fault("10", "duplicate annotation ids", "E, five named", of(COCO, "five_duplicate_annotation_ids_are_listed")),
    Fault("10", "ids as text", "F", of("coco/test_ground_truth.py", "ids_as_text_are_read_as_numbers")),
    Fault(
        "11",
        "duplicate image ids, empty or missing lists",
        "E",
        of(COCO, "lists_that_contradict_themselves_are_errors"),
    ),
    Fault(
        "12, 13",
        "unusable polygons",
        "S, the box stays",
        of(COCO, "an_unusable_polygon_costs_the_mask_and_not_the_box"),
    ),
    Fault("13", "a polygon over the border", "F", of(COCO, "a_polygon_slightly_outside_is_cut_at_the_border")),
    Fault(
        "14",
        "unsound run lengths",
        "E",
        of("coco/test_run_lengths.py", "an_unsound_mask_is_refused_by_name", "whatever_passes_decodes_to_its_own_size"),
    ),
    Fault(
        "15",
        "orientation tags 1 to 8, the size stated either way",
        "turned once, or E",
        of(
            DECODE,
            "orientation_follows_the_size_that_the_annotations_give",
            "a_size_that_fits_in_neither_way_is_an_error_with_both",
        ),
    ),
    Fault("16", "16 bits", "E or scaled", of(DECODE, "sixteen_bits_are_refused_or_scaled_never_whitened")),
    Fault(
        "17",
        "grey, alpha, palettes, CMYK, 1 bit",
        "converted",
        of(
            DECODE,
            "other_modes_become_three_channels_as_pillow_converts",
            "alpha_is_laid_over_white",
            "a_cmyk_jpeg_is_converted",
        ),
    ),
    Fault(
        "18",
        "truncated, empty, HTML, missing, a folder, unreadable",
        "E, or S in the budget",
        of(DECODE, "files_that_are_no_images_are_named_with_a_remedy")
        + of(LOADER, "a_skipped_image_changes_neither_its_neighbours_nor_the_order")
        + of(LOADER, "too_many_broken_images_are_an_error_all_the_same"),
    ),
    Fault(
        "18",
        "an image that cannot be read, in the middle of a run",
        "E, no step lost",
        of(FAULTS, "an_image_that_breaks_during_a_run_loses_no_step"),
    ),
    Fault(
        "19, S-k",
        "decompression bombs",
        "R before decoding",
        of(
            DECODE,
            "a_bomb_is_refused_before_decoding",
            "a_png_chunk_longer_than_its_file_is_refused_before_memory_is_cleared_for_it",
        ),
    ),
    Fault(
        "20",
        "crops and other augmentations that remove or cut boxes, and masks with them",
        "all stay aligned, what is dropped is counted",
        of(
            "data/augment/test_laws.py",
            "objects_stay_with_their_labels_masks_and_ids_under_every_composition",
            "no_object_is_lost_uncounted",
        ),
    ),
    Fault(
        "21",
        "a loss that is not finite",
        "E before the update",
        of(TRAIN, "a_loss_that_is_not_finite_stops_before_the_update"),
    ),
    Fault(
        "22",
        "gradients that overflow",
        "left out, counted; many are E",
        of(TRAIN, "gradients_that_are_not_finite_are_left_out_and_too_many_are_an_error"),
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
        of(FAULTS, "a_process_that_was_killed_counts_as_dead_before_its_parent_knows"),
    ),
    Fault(
        "26",
        "an error in one process",
        "the group is not torn down: the others may not answer",
        of(FAULTS, "the_group_is_torn_down_only_after_a_normal_end"),
    ),
    Fault(
        "28",
        "SIGKILL of a data worker",
        "E, no step lost",
        of(FAULTS, "a_killed_worker_ends_the_run_in_one_line_and_no_step_is_lost")
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
        of(FAULTS, "a_resume_goes_on_with_the_same_random_numbers"),
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
        of(FAULTS, "a_resume_names_what_is_different_here")
        + of(TRAIN, "another_number_of_threads_is_a_warning_with_both"),
    ),
    Fault("32", "whatever has a state", "is saved", of(TRAIN, "everything_with_a_state_is_saved")),
    Fault(
        "32",
        "an evaluation that is worse than the best",
        "best stays",
        of(FAULTS, "a_worse_evaluation_does_not_replace_the_best"),
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
    Fault("33", "SIGKILL at the beginning of a run", "resumed", of(FAULTS, "every_beginning_of_a_run_can_be_resumed")),
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
            FAULTS,
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
        + of(TRAIN, "training_goes_on_when_a_save_fails", "saves_that_fail_again_and_again_are_an_error"),
    ),
    Fault(
        "36",
        "a full disk when the last figures are written",
        "E, evaluated again by a resume",
        of(FAULTS, "figures_that_cannot_be_written_are_one_line_and_a_resume_writes_them"),
    ),
    Fault(
        "36",
        "a full disk while a line is added to a log",
        "kept until there is room",
        of(FAULTS, "a_line_that_the_disk_did_not_take_follows_without_loss_or_doubling"),
    ),
    Fault(
        "36",
        "a real full disk (tmpfs) that gets room later",
        "E, then resumed to the same bits",
        of(FAULTS, "a_full_disk_is_one_line_and_with_room_the_run_ends_as_if_nothing_had_happened"),
    ),
    Fault(
        "37",
        "SIGTERM in training, to one process and to the group",
        "saved, 143, no step lost",
        of(
            TRAIN,
            "a_signal_saves_before_leaving_and_the_resumed_run_ends_with_the_same_bits",
            "a_signal_to_the_whole_process_group_loses_no_step_and_exits_143",
        ),
    ),
    Fault(
        "37",
        "SIGTERM during an evaluation: the AP of a part is not recorded",
        "143",
        of(FAULTS, "the_figures_of_a_part_of_the_images_are_never_recorded")
        + of(TRAIN, "a_signal_during_an_evaluation_saves_and_the_resumed_run_evaluates"),
    ),
    Fault(
        "37",
        "SIGTERM before the first step, while drawing and while reporting",
        "143",
        of(FAULTS, "a_signal_outside_of_the_steps_is_one_line_and_143"),
    ),
    Fault(
        "37",
        "SIGTERM in any other command; in the evaluation of a saved model",
        "143, no figures of a part",
        of("cli/test_main.py", "a_signal_ends_every_command_in_one_line_and_143")
        + of(FAULTS, "a_signal_ends_an_evaluation_of_a_saved_model_without_figures")
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
        "39",
        "results with NaN, negative sides, unknown images or categories; none",
        "E; zeros",
        of("coco/test_results.py", "a_poisoned_result_is_refused_by_name", "an_empty_results_file_scores_zero"),
    ),
    Fault(
        "39, 40",
        "more detections than are scored, 300 of them",
        "by score, every row right",
        of(
            "evaluation/test_coco.py",
            "only_the_best_scored_detections_count",
            "every_row_is_right_with_300_detections",
        ),
    ),
    Fault(
        "40",
        "no objects, no area, equal scores",
        "None, F, the same in any order",
        of(
            "evaluation/test_coco.py",
            "without_objects_to_find_every_figure_is_undefined",
            "equal_scores_give_the_same_figures_in_any_order",
        )
        + of("coco/test_ground_truth.py", "a_missing_crowd_flag_is_0_and_a_missing_area_is_counted"),
    ),
    Fault(
        "41",
        "a set that processes cannot share evenly",
        "each image once",
        of(LOADER, "evaluation_shows_each_image_once_over_all_processes")
        + of("engine/test_distributed.py", "detections_of_two_processes_score_as_from_one"),
    ),
    Fault(
        "42",
        "neighbours of other sizes in a batch",
        "the same detections",
        of("predict/test_predictor.py", "detections_do_not_depend_on_the_neighbours_in_the_batch"),
    ),
    Fault(
        "42",
        "arrays and tensors of any type and layout, NaN pixels, no pixels",
        "right or E",
        of(
            "predict/test_pixels.py",
            "an_array_of_any_layout_and_type_is_the_same_picture",
            "a_tensor_of_any_layout_and_type_is_the_same_picture",
            "anything_else_is_one_line_with_shape_type_and_remedy",
        ),
    ),
    Fault(
        "S-a, S-b",
        "a pickle that runs code, under any name",
        "R, canary untouched",
        of(PICKLE, "a_hostile_pickle_runs_nothing", "the_refusal_names_the_forbidden_global")
        + of(READ, "a_pickle_named_safetensors_is_refused_and_not_run", "a_torch_file_runs_nothing"),
    ),
    Fault("S-c", "a torch file with a numpy global", "R", of(READ, "a_torch_file_with_a_numpy_global_is_refused")),
    Fault(
        "S-d",
        "safetensors with a huge or crooked header, truncated",
        "R",
        of(
            READ,
            "a_safetensors_header_of_200_mb_is_refused",
            "a_crooked_safetensors_header_is_refused",
            "a_truncated_safetensors_file_is_refused",
        ),
    ),
    Fault(
        "S-a",
        "the same in a checkpoint's model and state",
        "R, canary untouched",
        of(
            CHECKPOINT,
            "a_hostile_model_file_is_one_line_and_has_no_effect",
            "a_hostile_state_is_refused_without_effect",
            "a_state_that_would_grow_when_it_is_unpacked_is_refused",
        ),
    ),
    Fault(
        "S-e, S-f, S-g",
        "YAML tags that make objects, anchors upon anchors, references to the environment",
        "R",
        of(
            "config/test_load.py",
            "a_file_that_is_no_config_is_refused_in_one_line",
            "nothing_refers_to_another_value_or_to_the_environment",
        ),
    ),
    Fault(
        "S-i",
        "a compressed archive, an archive of another kind",
        "R",
        of(READ, "a_compressed_archive_is_refused", "an_archive_of_another_kind_is_refused"),
    ),
    Fault(
        "S-i",
        "a pipe or a device as an annotation file, a run's file or a manifest",
        "R, without a wait",
        of(FAULTS, "a_pipe_or_a_device_is_refused_at_once"),
    ),
    Fault(
        "S-i",
        "best and metrics.jsonl that are not UTF-8",
        "E, in one line; a damaged line is dropped",
        of(FAULTS, "files_of_a_run_that_are_not_text_do_not_end_in_a_traceback"),
    ),
    Fault(
        "S-j",
        "file names that leave the folder: absolute, .., links, NUL, URLs",
        "R",
        of(
            COCO,
            "a_name_that_leaves_the_images_folder_is_refused",
            "a_link_that_leaves_the_images_folder_is_refused",
        ),
    ),
    Fault(
        "S-j",
        "a link in a circle among the images",
        "hides no other file",
        of(COCO, "a_link_in_a_circle_is_no_image_and_no_concern_of_the_others")
        + of("data/sets/test_voc_files.py", "a_link_in_a_circle_hides_no_other_file")
        + of("data/sets/test_labelled_files.py", "a_link_in_a_circle_is_no_class_and_hides_none"),
    ),
    Fault(
        "S-j",
        "arguments that are too long for a file name",
        "E",
        of("cli/test_main.py", "an_argument_too_long_for_a_file_name_is_one_line"),
    ),
    Fault(
        "S-l",
        "names with escape sequences or markup",
        "shown as text",
        of("cli/test_main.py", "names_from_outside_do_not_steer_the_terminal")
        + of("analysis/report/test_write.py", "names_out_of_data_are_text_and_never_markup"),
    ),
    Fault(
        "S-m",
        "a download with another sha256, plain http, a redirect to it",
        "R",
        of(
            "weights/test_sources.py",
            "a_download_with_another_sha256_is_refused_and_removed",
            "plain_http_is_refused",
            "a_redirect_away_from_https_is_refused",
        ),
    ),
    Fault("S-n", "two trainings into one folder", "R", of(FAULTS, "a_second_training_into_a_folder_is_refused")),
    Fault(
        "S-n",
        "a foreign folder with a subfolder `checkpoints`, or with a config.yaml",
        "R",
        of(FAULTS, "a_foreign_folder_is_no_run"),
    ),
    Fault(
        "S-n",
        "--output, --json or --figure that names a file of somebody else",
        "R before any work",
        of("cli/test_outputs.py", "a_file_of_somebody_else_is_named_and_stays")
        + of("engine/test_run_folder.py", "an_evaluation_replaces_no_file_of_somebody_else"),
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
        "43",
        "an exported detector on 20 images and on one without objects, at other sizes",
        "as the eager one to 1e-4",
        of(
            "exporting/test_export.py",
            "the_graph_agrees_with_the_model_on_twenty_images_and_on_one_without_objects",
            "any_number_of_images_of_any_size",
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
        "18",
        "an image that another process left out",
        "told and counted",
        of(LIMITS, "an_image_that_another_process_left_out_is_told_at_the_next_save"),
    ),
    Fault(
        "33",
        "SIGKILL of a training whose data workers live on for a while",
        "resumed at once",
        of(FAULTS, "a_data_worker_that_outlives_a_killed_training_does_not_keep_its_lock"),
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
        "14",
        "run lengths whose sum wraps around at 2^64",
        "E",
        of("coco/test_reader.py", "run_lengths_whose_sum_wraps_around_are_refused"),
    ),
    Fault(
        "39",
        "20,000 classes without objects",
        "no figure changes, no table of 2 GB",
        of(
            "evaluation/test_backends.py",
            "classes_without_objects_change_no_figure_and_have_none",
            "an_evaluator_gets_no_table_of_classes_without_objects",
        ),
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
    Fault(
        "18",
        "a JPEG that lost its end and was given an end marker",
        "E",
        of(DECODE, "a_jpeg_that_lost_its_end_is_refused_although_it_has_its_end_marker"),
    ),
    Fault(
        "17",
        "alpha in a large image",
        "memory for little more than the image",
        of(DECODE, "alpha_takes_little_more_memory_than_the_image"),
    ),
    Fault(
        "42",
        "an image of one pixel in a side in the report of a run",
        "shown",
        of("analysis/report/test_write.py", "an_image_of_one_pixel_in_a_side_has_its_picture"),
    ),
    Fault(
        "S-h",
        "archives with paths, links and devices that leave them",
        "R: resdet unpacks no archive",
        of(
            "test_archives.py",
            "no_code_unpacks_an_archive",
            "an_archive_in_the_place_of_a_file_is_refused_and_stays_packed",
        ),
    ),
)


TESTS_OF_FAULTS = frozenset(test for row in ROWS for test in row.tests)


def is_of_a_fault(path: Path, name: str) -> bool:
    """Whether a test, by its file and its name without parameters, holds a row."""
    return f"{path.relative_to(TESTS).as_posix()}::{name}" in TESTS_OF_FAULTS
