"""All mutants."""

from mutants import of_coco, of_engine, of_evaluation, of_ops

MUTANTS = (*of_ops.MUTANTS, *of_evaluation.MUTANTS, *of_coco.MUTANTS, *of_engine.MUTANTS)
