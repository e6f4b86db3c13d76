//! How the tensors of a batch lie in the buffers that carry them to a card: as numbers, without a buffer.

use std::{mem::take, ops::Range};

/// A run of a tensor's elements, and where it lies in its buffer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Cut {
    /// The tensor's place in the batch.
    pub(super) tensor: usize,
    pub(super) elements: Range<usize>,
    /// Its first byte in the buffer.
    pub(super) at: usize,
}

/// Where a run may begin in a buffer: aligned for every number format.
const ALIGN: usize = 16;

/// A buffer of a small model is not smaller, and of a large one not larger.
const LENGTHS: (u64, u64) = (64 << 10, 2 << 20);

/// How large the buffers of a load are: small models need less memory that cannot be swapped.
pub(super) fn buffer_length(bytes: u64, buffers: usize) -> usize {
    let part = bytes.div_ceil(buffers.max(1) as u64);
    part.clamp(LENGTHS.0, LENGTHS.1).next_multiple_of(4096) as usize
}

/// Lays tensors out, each given as its elements and the bytes of one, in buffers of `length` bytes. An element is never
/// cut; a tensor without elements lies nowhere.
pub(super) fn pack(
    tensors: impl IntoIterator<Item = (usize, usize)>,
    length: usize,
) -> Vec<Vec<Cut>> {
    let (mut buffers, mut cuts, mut used) = (Vec::new(), Vec::new(), 0);
    for (tensor, (elements, size)) in tensors.into_iter().enumerate() {
        let mut start = 0;
        while start < elements {
            let room = (length - used) / size;
            if room == 0 {
                buffers.push(take(&mut cuts));
                used = 0;
                continue;
            }
            let end = elements.min(start + room);
            cuts.push(Cut {
                tensor,
                elements: start..end,
                at: used,
            });
            used += (end - start) * size;
            used = used.next_multiple_of(ALIGN).min(length);
            start = end;
        }
    }
    buffers.extend((!cuts.is_empty()).then_some(cuts));
    buffers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(tensor: usize, elements: Range<usize>, at: usize) -> Cut {
        Cut {
            tensor,
            elements,
            at,
        }
    }

    #[test]
    fn small_tensors_share_a_buffer_and_large_ones_take_several() {
        let packed = pack([(3, 4), (0, 4), (2, 2), (30, 2)], 48);
        let first = vec![cut(0, 0..3, 0), cut(2, 0..2, 16), cut(3, 0..8, 32)];
        assert_eq!(packed, [first, vec![cut(3, 8..30, 0)]]);
        assert_eq!(pack([(0, 4), (0, 8)], 48), Vec::<Vec<Cut>>::new());
    }

    #[test]
    fn every_element_is_carried_once_and_in_order() {
        for length in [16, 24, 64, 100, 4096] {
            let tensors = [(1, 8), (100, 4), (7, 1), (33, 2), (1000, 8), (5, 4)];
            let packed = pack(tensors, length);
            let mut next = [0; 6];
            for cuts in &packed {
                let mut free_from = 0;
                for cut in cuts {
                    let size = tensors[cut.tensor].1;
                    assert_eq!(cut.elements.start, next[cut.tensor]);
                    assert!(cut.at >= free_from && cut.at.is_multiple_of(ALIGN));
                    next[cut.tensor] = cut.elements.end;
                    free_from = cut.at + cut.elements.len() * size;
                }
                assert!(free_from <= length);
            }
            assert_eq!(next, tensors.map(|(elements, _)| elements));
        }
    }

    #[test]
    fn a_small_model_has_small_buffers() {
        assert_eq!(buffer_length(1, 8), 64 << 10);
        assert_eq!(buffer_length(4_000_000, 8), 503_808);
        assert_eq!(buffer_length(1 << 30, 8), 2 << 20);
        assert_eq!(buffer_length(1 << 30, 0), 2 << 20);
    }
}
