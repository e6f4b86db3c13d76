//! What is read together: which tensors make a batch, and how a tensor is cut into chunks.

use std::{
    ops::{Range, RangeInclusive},
    sync::Arc,
};

use candle_core::DType;

use super::plan::{TensorPlan, sum};
use crate::memory::MAPPED;

/// Bytes read at once: the longest a reader goes on after a cancel.
pub(super) const CHUNK: usize = 1 << 20;

/// Tensors are read together up to so many bytes of memory, the fewest and the most. The memory of those that are read
/// together lies side by side: less than what is always mapped.
const BATCH: RangeInclusive<u64> = 8 << 20..=(MAPPED as u64 - (1 << 20));

/// Models from so many bytes on get huge pages. Others are read in milliseconds anyway, and after an unload each reader's
/// heap may keep a part of its last huge page.
const HUGE_PAGES: u64 = 64 << 20;

/// A large model is cut into so many parts at least.
const PARTS: u64 = 16;

/// Whether a model of so many bytes gets huge pages.
pub(super) fn gets_huge_pages(bytes: u64) -> bool {
    bytes >= HUGE_PAGES
}

/// A run of tensors that one reader reads.
pub(super) type Batch = Vec<(Arc<str>, TensorPlan)>;

/// Cuts the tensors, in the order of their files, into runs for the readers.
pub(super) fn batches(
    tensors: impl IntoIterator<Item = (Arc<str>, TensorPlan)>,
    dtype: DType,
) -> Vec<Batch> {
    let tensors: Batch = tensors.into_iter().collect();
    let total = sum(tensors.iter().map(|(_, tensor)| tensor.run_bytes(dtype)));
    let limit = (total / PARTS).clamp(*BATCH.start(), *BATCH.end());
    cut(tensors, limit, dtype)
}

fn cut(mut tensors: Batch, limit: u64, dtype: DType) -> Vec<Batch> {
    tensors.sort_by(|(_, a), (_, b)| (&a.file, a.offset).cmp(&(&b.file, b.offset)));
    let mut batches: Vec<Batch> = Vec::new();
    let mut room = 0;
    for (name, tensor) in tensors {
        let bytes = tensor.run_bytes(dtype);
        match batches.last_mut() {
            Some(batch) if bytes <= room => batch.push((name, tensor)),
            _ => {
                batches.push(vec![(name, tensor)]);
                room = limit;
            }
        }
        room = room.saturating_sub(bytes);
    }
    batches
}

/// The elements of a tensor in runs of at most `step`.
pub(super) fn chunks(elements: usize, step: usize) -> impl Iterator<Item = Range<usize>> {
    let starts = (0..elements).step_by(step);
    starts.map(move |start| start..elements.min(start + step))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(file: &str, offset: u64, elements: usize) -> (Arc<str>, TensorPlan) {
        let plan = TensorPlan {
            file: file.into(),
            offset,
            shape: vec![elements],
            stored: DType::F32,
            wanted: None,
            uses: None,
        };
        (format!("{file}@{offset}").into(), plan)
    }

    #[test]
    fn tensors_are_read_in_file_order_small_ones_together() {
        let mib = 1 << 18;
        let tensors = [
            tensor("b", 0, 9 * mib),
            tensor("a", 4 << 20, 3 * mib),
            tensor("a", 0, mib),
            tensor("a", 7 << 20, 4 * mib),
            tensor("a", 11 << 20, 1),
        ];
        let names: Vec<Vec<_>> = cut(tensors.into(), 8 << 20, DType::F32)
            .iter()
            .map(|batch| batch.iter().map(|(name, _)| name.to_string()).collect())
            .collect();
        assert_eq!(
            names,
            [
                vec!["a@0", "a@4194304", "a@7340032"],
                vec!["a@11534336"],
                vec!["b@0"],
            ]
        );
    }
}
