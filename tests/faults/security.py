"""Faults of files and names that come from somebody else: what is provoked, the verdict, and the tests that hold it."""

from __future__ import annotations

from faults.row import CHECKPOINT, COCO, FOLDER, FOREIGN, PICKLE, READ, Fault, of

ROWS = (
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
        of(FOREIGN, "a_pipe_or_a_device_is_refused_at_once"),
    ),
    Fault(
        "S-i",
        "best and metrics.jsonl that are not UTF-8",
        "E, in one line; a damaged line is dropped",
        of(FOREIGN, "files_of_a_run_that_are_not_text_do_not_end_in_a_traceback"),
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
    Fault("S-n", "two trainings into one folder", "R", of(FOLDER, "a_second_training_into_a_folder_is_refused")),
    Fault(
        "S-n",
        "a foreign folder with a subfolder `checkpoints`, or with a config.yaml",
        "R",
        of(FOLDER, "a_foreign_folder_is_no_run"),
    ),
    Fault(
        "S-n",
        "--output, --json or --figure that names a file of somebody else",
        "R before any work",
        of("cli/test_outputs.py", "a_file_of_somebody_else_is_named_and_stays")
        + of("engine/test_run_folder.py", "an_evaluation_replaces_no_file_of_somebody_else"),
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
