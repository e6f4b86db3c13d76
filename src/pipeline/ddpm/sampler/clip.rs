//! Keeps predicted pictures within the range that pictures have.

use super::Clipping;

impl Clipping {
    /// Clips pictures of `row` numbers each.
    pub(super) fn apply(self, pictures: &mut [f32], row: usize) {
        match self {
            Self::None => {}
            Self::Range(range) => {
                let range = range as f32;
                for value in pictures {
                    *value = value.clamp(-range, range);
                }
            }
            Self::Dynamic { ratio, max } => {
                for picture in pictures.chunks_mut(row.max(1)) {
                    // In this order: a picture of numbers that are none has a range, too.
                    let range = quantile(picture, ratio as f32).max(1.0).min(max as f32);
                    for value in picture {
                        *value = value.clamp(-range, range) / range;
                    }
                }
            }
        }
    }

    /// What is left where a sampler only clips dynamically.
    pub(super) fn if_dynamic(self) -> Self {
        match self {
            Self::Dynamic { .. } => self,
            _ => Self::None,
        }
    }
}

/// What `ratio` of the absolute values keep to, between two of them in proportion, as torch has it.
fn quantile(values: &[f32], ratio: f32) -> f32 {
    let mut sorted: Vec<f32> = values.iter().map(|value| value.abs()).collect();
    sorted.sort_unstable_by(f32::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else {
        return 0.0;
    };
    let rank = ratio * last as f32;
    let below = (rank.floor() as usize).min(last);
    let above = (below + 1).min(last);
    let weight = rank - below as f32;
    sorted[below] + weight * (sorted[above] - sorted[below])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_cuts_and_nothing_does_nothing() {
        let mut values = [-3.0, 0.5, 2.0];
        Clipping::None.apply(&mut values, 3);
        assert_eq!(values, [-3.0, 0.5, 2.0]);
        Clipping::Range(1.5).apply(&mut values, 3);
        assert_eq!(values, [-1.5, 0.5, 1.5]);
    }

    #[test]
    fn numbers_that_are_none_are_survived() {
        let clipping = Clipping::Dynamic {
            ratio: 0.9,
            max: 2.0,
        };
        let mut values = [f32::NAN, f32::INFINITY, 0.5];
        clipping.apply(&mut values, 3);
        assert!(values[0].is_nan());
    }

    #[test]
    fn each_picture_has_its_own_dynamic_range() {
        let clipping = Clipping::Dynamic {
            ratio: 0.5,
            max: 4.0,
        };
        let mut values = [0.1, 0.2, -0.3, 2.0, -3.0, 9.0];
        clipping.apply(&mut values, 3);
        assert_eq!(values[..3], [0.1, 0.2, -0.3], "never below one");
        assert_eq!(values[3..], [2.0 / 3.0, -1.0, 1.0]);
    }
}
