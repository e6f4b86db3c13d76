//! What a convolution on the CPU is given.

/// Pictures of a batch, channels last.
#[derive(Clone, Copy)]
pub(super) struct Picture<'a> {
    pub(super) numbers: &'a [f32],
    pub(super) height: usize,
    pub(super) width: usize,
}

/// What the output is before the convolution is added.
pub(super) struct Start<'a> {
    /// One for each channel, of all samples or of each.
    pub(super) bias: &'a [f32],
    pub(super) channels: usize,
    pub(super) onto: Option<&'a [f32]>,
}

impl Start<'_> {
    /// Fills a run of pixels, of which a sample has so many.
    pub(super) fn fill(&self, to: &mut [f32], first: usize, of: usize) {
        let samples = self.bias.len() / self.channels;
        for (index, to) in to.chunks_exact_mut(self.channels).enumerate() {
            let pixel = first + index;
            let sample = pixel / of % samples;
            let bias = &self.bias[sample * self.channels..][..self.channels];
            match self.onto {
                None => to.copy_from_slice(bias),
                Some(onto) => {
                    let onto = &onto[pixel * self.channels..][..self.channels];
                    for ((to, bias), onto) in to.iter_mut().zip(bias).zip(onto) {
                        *to = bias + onto;
                    }
                }
            }
        }
    }
}
