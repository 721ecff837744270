//! How the loss head is cut so that no logits tensor outgrows its budget or what one binding may hold.

use crate::error::{Error, Result};
pub use crate::model::vocabulary::columns_per_tile;

/// What the plan has to respect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes that one tensor bound to a kernel may hold.
    pub max_binding_bytes: u64,
    /// Bytes that the logits of one chunk may hold over all its tiles.
    pub logits_bytes: u64,
    /// Rows of one chunk, at most.
    pub rows: usize,
}

impl HeadLimits {
    /// The default budget: 256 rows, in at most 192 MiB of logits, or in what a device says that one tile may take, where that
    /// is less.
    ///
    /// Each chunk reads and packs the whole head weight twice, which 256 rows make up for: on two cores more rows are no
    /// faster, and 80 rows of a 151,936-token vocabulary took a quarter longer (measured with `temper bench head`).
    pub fn new(max_binding_bytes: u64, tile_bytes: u64) -> Self {
        Self { max_binding_bytes, logits_bytes: tile_bytes.min(192 << 20), rows: 256 }
    }

    /// The same where logits of so many models lie beside each other.
    pub fn shared_by(self, models: u64) -> Self {
        Self { logits_bytes: self.logits_bytes / models.max(1), ..self }
    }
}

/// Rows of a chunk and columns of a vocabulary tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadPlan {
    /// Trained rows that share one logits tensor.
    pub rows_per_chunk: usize,
    /// Vocabulary entries of one head tile; the last tile may be narrower.
    pub columns_per_tile: usize,
}

/// Cuts `rows` trained rows evenly into chunks. A pure function of shapes and limits.
///
/// # Errors
/// [`Error::Limit`] where not even one row of one tile fits.
pub fn head_plan(rows: usize, hidden: usize, vocab: usize, limits: HeadLimits) -> Result<HeadPlan> {
    let columns_per_tile = columns_per_tile(hidden, vocab, limits.max_binding_bytes)?;
    let by_budget = limits.logits_bytes / (vocab as u64 * 4);
    let by_binding = limits.max_binding_bytes / (columns_per_tile as u64 * 4);
    if by_binding == 0 {
        return Err(Error::Limit {
            what: "one row of a logits tile".into(),
            needed: columns_per_tile as u64 * 4,
            allowed: limits.max_binding_bytes,
            adapter: "this device".into(),
            advice: "choose another device with --device".into(),
        });
    }
    // One row is always allowed: the budget is a wish, the binding a law.
    let most = (by_budget.min(limits.rows as u64).max(1)).min(by_binding) as usize;
    let chunks = rows.div_ceil(most).max(1);
    Ok(HeadPlan { rows_per_chunk: rows.div_ceil(chunks).max(1), columns_per_tile })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plan_covers_all_rows_and_columns_within_the_limits() {
        for rows in [1, 2, 63, 64, 65, 1000, 4096] {
            for hidden in [1, 64, 576, 2560, 5120] {
                for vocab in [2, 31, 256, 49_152, 151_936] {
                    for binding in [2u64 << 20, 128 << 20, (1 << 31) - 1, u64::MAX] {
                        let limits = HeadLimits::new(binding, u64::MAX);
                        let plan = head_plan(rows, hidden, vocab, limits).expect("these sizes fit");
                        let HeadPlan { rows_per_chunk: r, columns_per_tile: c } = plan;
                        assert!(r >= 1 && c >= 1 && c <= vocab && r <= rows, "{plan:?}");
                        assert!(c as u64 * hidden as u64 * 4 <= binding, "a head tile outgrows a binding: {plan:?}");
                        assert!(r as u64 * c as u64 * 4 <= binding, "a logits tile outgrows a binding: {plan:?}");
                        assert!(r <= limits.rows, "{plan:?}");
                        assert!(r == 1 || r as u64 * vocab as u64 * 4 <= limits.logits_bytes, "{plan:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn chunks_are_even_so_that_no_tiny_last_one_is_left() {
        let limits = HeadLimits { max_binding_bytes: u64::MAX, logits_bytes: 100 * 49_152 * 4, rows: 256 };
        assert_eq!(head_plan(101, 576, 49_152, limits).unwrap().rows_per_chunk, 51);
    }

    #[test]
    fn a_device_that_cannot_hold_one_row_is_refused_with_both_numbers() {
        let error = columns_per_tile(1024, 10, 4000).unwrap_err().to_string();
        assert!(error.contains("4096") && error.contains("4000"), "{error}");
    }
}
