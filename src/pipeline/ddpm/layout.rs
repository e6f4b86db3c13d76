//! [`Layout`]: where a model's folder keeps what.

use crate::{LoadError, ModelFiles};

/// The files of a model: as `DDPMPipeline.save_pretrained` writes them, or flat, as the first checkpoints were
/// published: without folders.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    /// The index of the pipeline; a lone network has none.
    pub(super) index: Option<&'static str>,
    pub(super) unet_config: &'static str,
    pub(super) weights: &'static str,
    pub(super) scheduler_config: &'static str,
}

const INDEX: &str = "model_index.json";

const FOLDERS: Layout = Layout {
    index: Some(INDEX),
    unet_config: "unet/config.json",
    weights: "unet/diffusion_pytorch_model.safetensors",
    scheduler_config: "scheduler/scheduler_config.json",
};

const FLAT: Layout = Layout {
    index: Some(INDEX),
    unet_config: "config.json",
    weights: "diffusion_pytorch_model.safetensors",
    scheduler_config: "scheduler_config.json",
};

impl Layout {
    /// Looks which files are there.
    pub(super) fn of(files: &dyn ModelFiles) -> Result<Self, LoadError> {
        let is_flat = !has(files, FOLDERS.unet_config)? && has(files, FLAT.unet_config)?;
        let mut layout = if is_flat { FLAT } else { FOLDERS };
        if is_flat && !has(files, INDEX)? {
            layout.index = None;
        }
        if !has(files, layout.scheduler_config)? {
            let others = [FOLDERS.scheduler_config, FLAT.scheduler_config];
            for other in others {
                if has(files, other)? {
                    layout.scheduler_config = other;
                }
            }
        }
        Ok(layout)
    }
}

fn has(files: &dyn ModelFiles, name: &str) -> Result<bool, LoadError> {
    match files.len(name) {
        Ok(_) => Ok(true),
        Err(LoadError::FileMissing { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryFiles;

    fn layout(names: &[&str]) -> Layout {
        let files = MemoryFiles::new(names.iter().map(|name| (*name, Vec::new())));
        Layout::of(&files).expect("files in memory can be read")
    }

    #[test]
    fn folders_come_before_flat_files() {
        let both = [
            FOLDERS.unet_config,
            FLAT.unet_config,
            FOLDERS.scheduler_config,
        ];
        assert_eq!(layout(&both), FOLDERS);
        let nothing = layout(&[]);
        assert_eq!(nothing, FOLDERS, "what is missing is named as it should be");
    }

    #[test]
    fn a_flat_model_may_lack_its_index_or_have_a_folder_for_its_scheduler() {
        let flat = [INDEX, FLAT.unet_config, FLAT.scheduler_config];
        assert_eq!(layout(&flat), FLAT);
        let lone = layout(&[FLAT.unet_config, FOLDERS.scheduler_config]);
        assert_eq!(
            lone,
            Layout {
                index: None,
                scheduler_config: FOLDERS.scheduler_config,
                ..FLAT
            }
        );
    }
}
