"""One check for each task of the exercises: it prints a line, or says what is missing.

A check never looks at how an answer is written, only at what it does: on the example
shown, on other inputs, and in the gradients.
"""

from vit_course.checks.hints import Hint
from vit_course.checks.lesson_00 import (
    check_head_dim,
    check_measure_giant,
    check_trace_shapes,
    check_wrong_rows,
)
from vit_course.checks.lesson_01 import (
    check_channel_statistics,
    check_measure_loading,
    check_pad_to_square,
    check_seed_all,
)
from vit_course.checks.lesson_02 import (
    check_mended_grid,
    check_num_patches,
    check_overlapping_patches,
    check_variance_fractions,
)
from vit_course.checks.lesson_03 import (
    check_linear_patch_embedding,
    check_mean_colours,
    check_mended_patch_embedding,
    check_time_ratio,
)
from vit_course.checks.lesson_04 import (
    check_class_token_memory,
    check_class_tokens,
    check_mended_class_token,
    check_repeated_class_token,
)
from vit_course.checks.lesson_05 import (
    check_mended_sums,
    check_position_std,
    check_row_column_positions,
    check_saved_parameters,
)
from vit_course.checks.lesson_06 import (
    check_attention_entropy,
    check_distance_attention,
    check_mask_from_lengths,
    check_mended_scores,
)
from vit_course.checks.lesson_07 import (
    check_mended_split,
    check_rms_norm,
    check_row_sums_of_heads,
    check_separate_projections,
)
from vit_course.checks.lesson_08 import (
    check_dead_units,
    check_geglu,
    check_mended_dropout,
    check_mlp_of_convolutions,
)
from vit_course.checks.lesson_09 import (
    check_layer_scale_block,
    check_mended_drop_path,
    check_residual,
    check_similarity_by_layer,
)
from vit_course.checks.lesson_10 import (
    check_built_in_vit,
    check_mean_state,
    check_measured_parts,
    check_mended_head,
)
from vit_course.checks.lesson_11 import (
    check_lr_finder,
    check_measured_run,
    check_mended_report,
    check_near_duplicates,
)
from vit_course.checks.lesson_12 import (
    check_accuracy_by_size,
    check_patch_features,
    check_prepared_images,
    check_resolution,
)
from vit_course.checks.lesson_13 import (
    check_gradient_map,
    check_least_confident,
    check_received_attention,
    check_removal_of_patches,
)
from vit_course.checks.lesson_14 import (
    check_accumulated_gradient,
    check_early_stop,
    check_image_views,
    check_vit_script,
)
from vit_course.checks.lesson_15 import (
    check_folded_layer_scale,
    check_kept_predictions,
    check_mended_qk_norm,
)
from vit_course.checks.lesson_16 import (
    check_measured_race,
    check_proof,
    check_variation,
)

__all__ = [
    "Hint",
    "check_accumulated_gradient",
    "check_accuracy_by_size",
    "check_attention_entropy",
    "check_built_in_vit",
    "check_channel_statistics",
    "check_class_token_memory",
    "check_class_tokens",
    "check_dead_units",
    "check_distance_attention",
    "check_early_stop",
    "check_folded_layer_scale",
    "check_geglu",
    "check_gradient_map",
    "check_head_dim",
    "check_image_views",
    "check_kept_predictions",
    "check_layer_scale_block",
    "check_least_confident",
    "check_linear_patch_embedding",
    "check_lr_finder",
    "check_mask_from_lengths",
    "check_mean_colours",
    "check_mean_state",
    "check_measure_giant",
    "check_measure_loading",
    "check_measured_parts",
    "check_measured_race",
    "check_measured_run",
    "check_mended_class_token",
    "check_mended_drop_path",
    "check_mended_dropout",
    "check_mended_grid",
    "check_mended_head",
    "check_mended_patch_embedding",
    "check_mended_qk_norm",
    "check_mended_report",
    "check_mended_scores",
    "check_mended_split",
    "check_mended_sums",
    "check_mlp_of_convolutions",
    "check_near_duplicates",
    "check_num_patches",
    "check_overlapping_patches",
    "check_pad_to_square",
    "check_patch_features",
    "check_position_std",
    "check_prepared_images",
    "check_proof",
    "check_received_attention",
    "check_removal_of_patches",
    "check_repeated_class_token",
    "check_residual",
    "check_resolution",
    "check_rms_norm",
    "check_row_column_positions",
    "check_row_sums_of_heads",
    "check_saved_parameters",
    "check_seed_all",
    "check_separate_projections",
    "check_similarity_by_layer",
    "check_time_ratio",
    "check_trace_shapes",
    "check_variance_fractions",
    "check_variation",
    "check_vit_script",
    "check_wrong_rows",
]
