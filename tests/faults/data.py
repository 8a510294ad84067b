"""Faults of annotations, images and their augmentation: what is provoked, the verdict, and the tests that hold it."""

from __future__ import annotations

from faults.row import COCO, DECODE, LIMITS, LOADER, REFUSED, WORKERS, Fault, of

ROWS = (
    Fault("1", "a box without area, a negative side", "S", of(COCO, "the_counts_of_the_report_add_up")),
    Fault("1", "the same under check-data --strict", "E", of(REFUSED, "strict_makes_an_error_of_what_is_skipped")),
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
    Fault("9", "train and val list other categories", "E", of(REFUSED, "train_and_val_must_list_the_same_categories")),
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
        of(WORKERS, "an_image_that_breaks_during_a_run_loses_no_step"),
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
        "18",
        "an image that another process left out",
        "told and counted",
        of(LIMITS, "an_image_that_another_process_left_out_is_told_at_the_next_save"),
    ),
    Fault(
        "14",
        "run lengths whose sum wraps around at 2^64",
        "E",
        of("coco/test_reader.py", "run_lengths_whose_sum_wraps_around_are_refused"),
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
)
