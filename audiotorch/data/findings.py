"""The names of what may be wrong with a data set, and which of it makes the set wrong."""

__all__ = ["NOTES", "PROBLEMS"]

PROBLEMS: dict[str, str] = {
    "unreadable": "cannot be read",
    "truncated": "cut off or damaged",
    "bad_row": "rows of the table that name no recording",
    "lying": "another format than the suffix says",
    "non_finite": "NaN or infinite samples",
    "empty": "no samples",
    "silence": "nothing to hear",
    "duplicate_across_splits": "one recording in several splits",
    "duplicate_across_labels": "one recording under several labels",
}
"""Names of findings that make a data set wrong, worst first, and what they mean."""

NOTES: dict[str, str] = {
    "duplicate": "the same recording again, sample for sample",
    "near_duplicate": "the same recording again, coded, scaled, clipped, resampled or cut anew",
    "single_clip_label": "labels with one clip",
    "similar_labels": "labels that differ by case or blanks only",
    "clipping": "clipped",
    "dropouts": "gaps where data was lost",
    "low_bandwidth": "less bandwidth than the rate promises",
    "dead_channel": "a dead channel",
    "identical_channels": "channels that are equal",
    "dc_offset": "an offset",
    "low_level": "very quiet",
    "noisy": "noisy",
    "too_short": "very short",
    "mixed_sample_rates": "several sample rates",
    "mixed_channels": "several channel counts",
    "imbalanced_labels": "labels with far fewer clips than others",
}
"""Names of findings that one should know of, and that a model may live with."""
