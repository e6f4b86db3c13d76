//! What editors, inspectors and the Bevy Remote Protocol see.
//!
//! The data of this crate is [`Reflect`]; the plugins register it. What is not: whatever holds a thread, a channel or
//! a pipeline (`LoaderService`, `PipelineManager`, `Plan`, `Steps`); what has a pipeline's own types in it, which need
//! not reflect (`Infer` and its events); errors, which show as text; sources, which hold files; plugins and sets.

use std::{any::type_name, sync::Arc};

use bevy::{
    prelude::*,
    reflect::{ReflectSerialize, TypePath, utility::GenericTypePathCell},
    utils::prelude::ShortName,
};
use serde::{Serialize, Serializer};

use crate::{
    CardReport, DeviceChoice, DeviceMemory, ErrorChain, LeastRecentlyUsed, LoadError, LoadPhase,
    ModelId, ModelManager, ModelMemory, ModelState, ModelStatus, ModelTransition, Pipeline,
    Progress, ReleaseReport, Residency, ResidentModel, ResourceManager, SlotId, Standing,
    StateManager, StateOf, TransitionReason,
    ddpm::{
        ActivationFunction, BetaSchedule, BlockType, ClassEmbedding, Clipping, DdpmConfig,
        DdpmOutput, DdpmRequest, DdpmSettings, FinalSigma, Guidance, PredictionType, Resampling,
        Sampler, SchedulerConfig, SigmaSpacing, SolverType, StartImage, TimeEmbedding,
        TimestepSpacing, UNetConfig, VarianceType,
    },
    machine::{Facts, Step},
};

/// Registers what all kinds of models share.
pub(crate) fn register_types(app: &mut App) {
    app.register_type::<ActivationFunction>()
        .register_type::<BetaSchedule>()
        .register_type::<BlockType>()
        .register_type::<CardReport>()
        .register_type::<ClassEmbedding>()
        .register_type::<Clipping>()
        .register_type::<DdpmConfig>()
        .register_type::<DdpmOutput>()
        .register_type::<DdpmRequest>()
        .register_type::<DdpmSettings>()
        .register_type::<DeviceChoice>()
        .register_type::<DeviceMemory>()
        .register_type::<Facts>()
        .register_type::<FinalSigma>()
        .register_type::<Guidance>()
        .register_type::<LeastRecentlyUsed>()
        .register_type::<LoadPhase>()
        .register_type::<ModelId>()
        .register_type::<ModelMemory>()
        .register_type::<ModelState>()
        .register_type::<ModelStatus>()
        .register_type::<PredictionType>()
        .register_type::<Progress>()
        .register_type::<ReleaseReport>()
        .register_type::<Resampling>()
        .register_type::<Residency>()
        .register_type::<ResidentModel>()
        .register_type::<ResourceManager>()
        .register_type::<Sampler>()
        .register_type::<SchedulerConfig>()
        .register_type::<SigmaSpacing>()
        .register_type::<SlotId>()
        .register_type::<SolverType>()
        .register_type::<Standing>()
        .register_type::<StartImage>()
        .register_type::<StateManager>()
        .register_type::<Step>()
        .register_type::<TimeEmbedding>()
        .register_type::<TimestepSpacing>()
        .register_type::<TransitionReason>()
        .register_type::<UNetConfig>()
        .register_type::<VarianceType>()
        .register_type_data::<Arc<LoadError>, ReflectSerialize>();
}

/// Registers what belongs to one kind of model.
pub(crate) fn register_kind<P: Pipeline>(app: &mut App) {
    app.register_type::<ModelManager<P>>()
        .register_type::<StateOf<P>>()
        .register_type::<ModelTransition<P>>();
}

/// Names a generic type after its pipeline, which need not be [`TypePath`] itself.
macro_rules! name_after_pipeline {
    ($($name:ident),*) => {$(
        impl<P: Pipeline> TypePath for $name<P> {
            fn type_path() -> &'static str {
                static CELL: GenericTypePathCell = GenericTypePathCell::new();
                CELL.get_or_insert::<Self, _>(|| {
                    format!("bevy_candle::{}<{}>", stringify!($name), type_name::<P>())
                })
            }

            fn short_type_path() -> &'static str {
                static CELL: GenericTypePathCell = GenericTypePathCell::new();
                CELL.get_or_insert::<Self, _>(|| {
                    format!("{}<{}>", stringify!($name), ShortName::of::<P>())
                })
            }

            fn type_ident() -> Option<&'static str> {
                Some(stringify!($name))
            }

            fn crate_name() -> Option<&'static str> {
                Some("bevy_candle")
            }

            fn module_path() -> Option<&'static str> {
                Some("bevy_candle")
            }
        }
    )*};
}

name_after_pipeline!(ModelManager, ModelTransition, StateOf);

/// A tool shows what a person would read.
impl Serialize for LoadError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&ErrorChain(self))
    }
}

impl<P: Pipeline> FromReflect for ModelManager<P> {
    /// Returns [`None`]: a manager cannot be made from data.
    fn from_reflect(_: &dyn PartialReflect) -> Option<Self> {
        None
    }
}
