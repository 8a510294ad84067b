"""Faults of results, figures, predictions and exports: what is provoked, the verdict, and the tests that hold it."""

from __future__ import annotations

from faults.row import LOADER, Fault, of

ROWS = (
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
        "42",
        "an image of one pixel in a side in the report of a run",
        "shown",
        of("analysis/report/test_write.py", "an_image_of_one_pixel_in_a_side_has_its_picture"),
    ),
)
