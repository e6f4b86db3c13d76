//! An architecture of candle-transformers as a pipeline: the trait is not the UNet's.

use bevy::prelude::*;
use bevy_candle::{
    MemoryFiles,
    candle::{DType, Device, IndexOp, Tensor},
    candle_nn::{VarBuilder, VarMap},
    prelude::*,
    read_json,
    test_kit::run_until,
};
use candle_transformers::models::llama::{Cache, Config, Llama, LlamaConfig};

/// Continues a text, token by token.
struct Storyteller {
    llama: Llama,
    config: Config,
    device: Device,
}

#[derive(Clone)]
struct Prompt {
    tokens: Vec<u32>,
    length: u32,
}

impl Pipeline for Storyteller {
    type Config = LlamaConfig;
    type Settings = ();
    type Request = Prompt;
    type Partial = Vec<u32>;
    type Output = Vec<u32>;

    fn plan(files: &dyn ModelFiles) -> Result<Plan<LlamaConfig>, LoadError> {
        Plan::new(read_json::<LlamaConfig>(files, "config.json")?)
            .weights(files, "model.safetensors")?
            .check(|config, vb| Llama::load(vb, &config.clone().into_config(false)))
    }

    async fn build(
        config: LlamaConfig,
        weights: VarBuilder<'static>,
        _: &LoadSteps,
    ) -> Result<Self, LoadError> {
        let (config, device) = (config.into_config(false), weights.device().clone());
        Ok(Self {
            llama: Llama::load(weights, &config)?,
            config,
            device,
        })
    }

    async fn infer(&self, prompt: Prompt, steps: Steps<Self>) -> Result<Vec<u32>, InferError> {
        let mut cache = Cache::new(true, DType::F32, &self.config, &self.device)?;
        let (mut tokens, mut seen) = (prompt.tokens, 0);
        for step in 1..=prompt.length {
            let new = Tensor::new(&tokens[seen..], &self.device)?.unsqueeze(0)?;
            let next = self
                .llama
                .forward(&new, seen, &mut cache)?
                .i(0)?
                .argmax(0)?
                .to_scalar()?;
            seen = tokens.len();
            tokens.push(next);
            steps.next(step, prompt.length, || tokens.clone()).await;
        }
        Ok(tokens)
    }
}

const CONFIG: &str = r#"{
    "hidden_size": 32, "intermediate_size": 64, "vocab_size": 50, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "max_position_embeddings": 64
}"#;

/// A model with random weights, as a checkpoint.
fn checkpoint() -> MemoryFiles {
    let weights = VarMap::new();
    let vb = VarBuilder::from_varmap(&weights, DType::F32, &Device::Cpu);
    let config: LlamaConfig = serde_json::from_str(CONFIG).expect("a configuration");
    Llama::load(vb, &config.into_config(false)).expect("a model");
    let weights = weights.data().lock().expect("nobody else").clone();
    let bytes = safetensors::serialize(
        weights.iter().map(|(name, var)| (name, var.as_tensor())),
        None,
    );
    MemoryFiles::new([
        ("config.json", CONFIG.into()),
        ("model.safetensors", bytes.expect("bytes")),
    ])
}

/// The same, by candle alone and without a cache of keys and values.
fn continue_directly(files: &dyn ModelFiles, tokens: &[u32], length: usize) -> Vec<u32> {
    let mut bytes = vec![0; files.len("model.safetensors").expect("a length") as usize];
    files
        .read_at("model.safetensors", 0, &mut bytes)
        .expect("bytes");
    let config: LlamaConfig = read_json(files, "config.json").expect("a configuration");
    let config = config.into_config(false);
    let vb =
        VarBuilder::from_buffered_safetensors(bytes, DType::F32, &Device::Cpu).expect("weights");
    let llama = Llama::load(vb, &config).expect("a model");
    let mut tokens = tokens.to_vec();
    for _ in 0..length {
        let mut cache = Cache::new(false, DType::F32, &config, &Device::Cpu).expect("a cache");
        let all = Tensor::new(tokens.as_slice(), &Device::Cpu)
            .and_then(|all| all.unsqueeze(0))
            .expect("tokens");
        let next = llama
            .forward(&all, 0, &mut cache)
            .and_then(|logits| logits.i(0)?.argmax(0)?.to_scalar());
        tokens.push(next.expect("a token"));
    }
    tokens
}

#[derive(Resource, Default)]
struct Story {
    partials: usize,
    tokens: Option<Vec<u32>>,
}

#[test]
fn a_language_model_tells_the_same_story_as_candle_alone() {
    let files = std::sync::Arc::new(checkpoint());
    let expected = continue_directly(&*files, &[1, 2, 3], 12);
    let mut app = App::new();
    app.add_plugins((MinimalPlugins, ModelPlugin::<Storyteller>::default()))
        .init_resource::<Story>();
    app.world_mut()
        .resource_mut::<ModelManager<Storyteller>>()
        .load(ModelSource::files("tiny llama", files));
    let prompt = Prompt {
        tokens: vec![1, 2, 3],
        length: 12,
    };
    app.world_mut()
        .spawn(Infer::<Storyteller>::new(prompt).previews_every(1))
        .observe(
            |step: On<InferStep<Storyteller>>, mut story: ResMut<Story>| {
                assert_eq!(
                    step.partial.as_ref().map(Vec::len),
                    Some(3 + step.step as usize)
                );
                story.partials += 1;
            },
        )
        .observe(
            |mut done: On<Inferred<Storyteller>>, mut story: ResMut<Story>| {
                story.tokens = Some(done.take().expect("a story"));
            },
        );
    run_until(&mut app, "the story", |world| {
        world.resource::<Story>().tokens.is_some()
    });
    let story = app.world().resource::<Story>();
    assert_eq!(story.tokens, Some(expected));
    assert!(story.partials > 0);
    assert_eq!(
        app.world()
            .resource::<ModelManager<Storyteller>>()
            .sample_size,
        None,
        "it makes no pictures"
    );
}
