//! Models of published shapes with random weights, to prove and to measure with what nobody needs to download.
//!
//! The numbers are those of the models' `config.json` on the Hugging Face hub, by the name in [`PUBLISHED`].

use std::io::{self, Write};

use half::{bf16, f16};

use super::gguf::{Announced, Field, write};
use super::quantised::description;
use super::recipe::{Matrix, Recipe};
use crate::error::wrong;
use crate::model::architecture::{Architecture, Window};
use crate::model::family::{Family, gemma3, glm4, llama, phi3, qwen2, qwen3};
use crate::model::gguf::{Stored, rope_divisors, stored_tensors};
use crate::model::layout::Kind;
use crate::model::rope::{Llama3Scaling, LongRope, Rope, RopeScaling};
use crate::rng::{Rng, mix};
use crate::weights::WeightFormat;

/// A published model's shape.
pub struct Shape {
    /// As the command takes it.
    pub name: &'static str,
    /// Where the numbers stand.
    pub source: &'static str,
    family: &'static Family,
    hidden: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    rotary_dim: usize,
    intermediate: usize,
    vocab: usize,
    tied: bool,
    bias: bool,
    theta: f64,
    scaling: fn() -> Option<RopeScaling>,
    epsilon: f64,
    context: usize,
    /// Tokens of the window of those blocks that usually have one.
    window: Option<usize>,
}

const QWEN3: Shape = Shape {
    name: "",
    source: "",
    family: &qwen3::FAMILY,
    hidden: 0,
    layers: 0,
    heads: 0,
    kv_heads: 8,
    head_dim: 128,
    rotary_dim: 128,
    intermediate: 0,
    vocab: 151_936,
    tied: false,
    bias: false,
    theta: 1e6,
    scaling: || None,
    epsilon: 1e-6,
    context: 40_960,
    window: None,
};

const GLM4: Shape = Shape {
    family: &glm4::FAMILY,
    rotary_dim: 64,
    vocab: 151_552,
    theta: 10_000.0,
    epsilon: 1e-5,
    context: 32_768,
    ..QWEN3
};

const GEMMA3: Shape = Shape {
    family: &gemma3::FAMILY,
    head_dim: 256,
    rotary_dim: 256,
    vocab: 262_144,
    tied: true,
    context: 32_768,
    window: Some(512),
    ..QWEN3
};

/// Every shape.
#[rustfmt::skip]
pub const PUBLISHED: &[Shape] = &[
    Shape { name: "qwen3-0.6b", source: "Qwen/Qwen3-0.6B", hidden: 1024, layers: 28, heads: 16, intermediate: 3072, tied: true, ..QWEN3 },
    Shape { name: "qwen3-1.7b", source: "Qwen/Qwen3-1.7B", hidden: 2048, layers: 28, heads: 16, intermediate: 6144, tied: true, ..QWEN3 },
    Shape { name: "qwen3-4b", source: "Qwen/Qwen3-4B", hidden: 2560, layers: 36, heads: 32, intermediate: 9728, tied: true, ..QWEN3 },
    Shape { name: "qwen3-8b", source: "Qwen/Qwen3-8B", hidden: 4096, layers: 36, heads: 32, intermediate: 12_288, ..QWEN3 },
    Shape { name: "qwen3-14b", source: "Qwen/Qwen3-14B", hidden: 5120, layers: 40, heads: 40, intermediate: 17_408, ..QWEN3 },
    Shape { name: "qwen3-32b", source: "Qwen/Qwen3-32B", hidden: 5120, layers: 64, heads: 64, intermediate: 25_600, ..QWEN3 },
    Shape {
        name: "qwen2.5-32b", source: "Qwen/Qwen2.5-32B-Instruct", family: &qwen2::FAMILY, hidden: 5120, layers: 64, heads: 40,
        intermediate: 27_648, vocab: 152_064, bias: true, context: 32_768, ..QWEN3
    },
    Shape {
        name: "glm4-9b", source: "zai-org/GLM-4-9B-0414", hidden: 4096, layers: 40, heads: 32, kv_heads: 2, intermediate: 13_696,
        bias: true, ..GLM4
    },
    Shape { name: "glm4-32b", source: "zai-org/GLM-4-32B-0414", hidden: 6144, layers: 61, heads: 48, kv_heads: 2, intermediate: 23_040, ..GLM4 },
    Shape {
        name: "llama3.1-8b", source: "meta-llama/Llama-3.1-8B", family: &llama::FAMILY, hidden: 4096, layers: 32, heads: 32,
        intermediate: 14_336, vocab: 128_256, theta: 500_000.0, scaling: llama3, epsilon: 1e-5, context: 131_072, ..QWEN3
    },
    Shape { name: "gemma3-270m", source: "google/gemma-3-270m", hidden: 640, layers: 18, heads: 4, kv_heads: 1, intermediate: 2048, ..GEMMA3 },
    Shape { name: "gemma3-1b", source: "google/gemma-3-1b-pt", hidden: 1152, layers: 26, heads: 4, kv_heads: 1, intermediate: 6912, ..GEMMA3 },
    Shape {
        name: "gemma3-4b", source: "google/gemma-3-4b-pt", hidden: 2560, layers: 34, heads: 8, kv_heads: 4, intermediate: 10_240,
        vocab: 262_208, scaling: || Some(RopeScaling::Linear { factor: 8.0 }), context: 131_072, window: Some(1024), ..GEMMA3
    },
    Shape {
        name: "phi4-mini", source: "microsoft/Phi-4-mini-instruct", family: &phi3::FAMILY, hidden: 3072, layers: 32, heads: 24,
        rotary_dim: 96, intermediate: 8192, vocab: 200_064, tied: true, theta: 10_000.0, scaling: phi4_mini, epsilon: 1e-5,
        context: 131_072, ..QWEN3
    },
];

fn llama3() -> Option<RopeScaling> {
    let (factor, original_context) = (8.0, 8192.0);
    let scaling = Llama3Scaling { factor, low_frequency_factor: 1.0, high_frequency_factor: 4.0, original_context };
    Some(RopeScaling::Llama3(scaling))
}

/// Its short factors are 1; the long ones, which nothing here reads, are made up.
fn phi4_mini() -> Option<RopeScaling> {
    let (original_context, reach) = (4096, 131_072);
    let (short, long) = (vec![1.0; 48], vec![32.0; 48]);
    let attention = LongRope::attention_of(32.0, original_context);
    Some(RopeScaling::Long(LongRope { short, long, original_context, reach, attention }))
}

/// Standard deviation of the weights, as `initializer_range` of these models.
const STD: f64 = 0.02;

impl Shape {
    /// The shape of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        PUBLISHED.iter().find(|shape| shape.name == name)
    }

    /// As a description, with another number of blocks where `layers` is given.
    pub fn architecture(&self, layers: Option<usize>) -> Architecture {
        let layers = layers.unwrap_or(self.layers);
        let rope = Rope {
            theta: self.theta,
            rotary_dim: self.rotary_dim,
            interleaved: self.family.interleaved_rotary,
            scaling: (self.scaling)(),
        };
        Architecture {
            family: self.family,
            vocab: self.vocab,
            hidden: self.hidden,
            layers,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            intermediate: self.intermediate,
            norm_epsilon: self.epsilon,
            context: rope.scaling.as_ref().map_or(self.context, |scaling| scaling.context(self.context)),
            local_rope: self.family.local_theta.map(|theta| Rope { theta, scaling: None, ..rope.clone() }),
            rope,
            window: self.window.map(|tokens| Window { tokens, pattern: self.family.windows.usual_pattern(layers) }),
            attention_scale: None,
            embedding_scale: self.family.embedding_scale(self.hidden),
            attention_bias: self.bias,
            tied_head: self.tied,
        }
    }
}

/// What a tensor's values are.
enum Values {
    /// Random, with this standard deviation.
    Random(f64),
    Ones,
    Zeros,
    /// Given.
    Given(Vec<f32>),
}

/// Writes a GGUF file of this architecture, tokenizer included, its matrices stored by `recipe`. The same seed gives the same
/// bytes.
///
/// # Errors
/// The writer's; a recipe that cannot be fabricated.
pub fn fabricate(out: &mut dyn Write, arch: &Architecture, recipe: Recipe, seed: u64) -> io::Result<()> {
    if !FORMATS.contains(&recipe) {
        let problem = format!("{} cannot be fabricated; {} can", recipe.name(), FORMATS.map(Recipe::name).join(", "));
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    }
    let residual = STD / (2.0 * arch.layers as f64).sqrt();
    let std = |kind| if kind == Kind::Residual { residual } else { STD };
    let mut tensors = Vec::new();
    for Stored { spec, name, kind, .. } in stored_tensors(arch) {
        let row = spec.shape.last().copied().unwrap_or(1);
        let (values, format) = match kind {
            Kind::Norm => (Values::Ones, WeightFormat::F32),
            Kind::Bias => (Values::Zeros, WeightFormat::F32),
            Kind::Matrix | Kind::Residual => {
                let matrix = Matrix { name: &name, row, layers: arch.layers, tied: arch.tied_head };
                (Values::Random(std(kind)), recipe.format(matrix))
            }
        };
        tensors.push((Announced { name, shape: spec.shape, format }, values));
    }
    for (name, divisors) in rope_divisors(arch) {
        let announced = Announced { name: name.into(), shape: vec![divisors.len()], format: WeightFormat::F32 };
        // After the embedding: a tensor's place is part of its seed.
        tensors.insert(1, (announced, Values::Given(divisors)));
    }
    let (announced, values): (Vec<_>, Vec<_>) = tensors.into_iter().unzip();
    write(out, &metadata(arch)?, &announced, &mut |index, out| {
        let Announced { shape, format, .. } = &announced[index];
        let count = shape.iter().product::<usize>();
        match &values[index] {
            Values::Random(std) => random_blocks(out, *format, count, *std, mix(seed, index as u64)),
            Values::Ones => (0..count).try_for_each(|_| out.write_all(&1.0_f32.to_le_bytes())),
            Values::Zeros => (0..count).try_for_each(|_| out.write_all(&0.0_f32.to_le_bytes())),
            Values::Given(values) => values.iter().try_for_each(|x| out.write_all(&x.to_le_bytes())),
        }
    })
}

/// What can be fabricated.
pub const FORMATS: [Recipe; 6] = [
    Recipe::Uniform(WeightFormat::Q4_0),
    Recipe::Uniform(WeightFormat::Q4K),
    Recipe::Q4KM,
    Recipe::Uniform(WeightFormat::Q5_0),
    Recipe::Uniform(WeightFormat::Q8_0),
    Recipe::Uniform(WeightFormat::Bf16),
];

/// Blocks whose elements have mean 0 and this standard deviation, about uniformly distributed.
fn random_blocks(out: &mut dyn Write, format: WeightFormat, count: usize, std: f64, seed: u64) -> io::Result<()> {
    /// Bytes made at a time.
    const PIECE: usize = 1 << 20;
    let mut rng = Rng::new(seed);
    // Standard deviation of uniform whole numbers from 0 to n - 1.
    let spread = |n: f64| ((n * n - 1.0) / 12.0).sqrt();
    let half = |x: f64| f16::from_f64(x).to_le_bytes();
    // Quants reach one step further down than up, so half of the scales are negative.
    let set_scale = |block: &mut [u8], d: f64| {
        let d = if block[0] & 1 == 1 { -d } else { d };
        block[..2].copy_from_slice(&half(d));
    };
    let block_bytes = format.block_bytes();
    let mut left = count / format.block_elements();
    let mut bytes = Vec::with_capacity(PIECE + 8);
    while left > 0 {
        let blocks = (PIECE / block_bytes).min(left);
        bytes.clear();
        while bytes.len() < blocks * block_bytes {
            bytes.extend(rng.next_u64().to_le_bytes());
        }
        bytes.truncate(blocks * block_bytes);
        for block in bytes.chunks_exact_mut(block_bytes) {
            match format {
                WeightFormat::Q4_0 => set_scale(block, std / spread(16.0)),
                WeightFormat::Q5_0 => set_scale(block, std / spread(32.0)),
                WeightFormat::Q8_0 => set_scale(block, std / spread(256.0)),
                WeightFormat::Q4K => {
                    // All scales and minima are 32: `32 d (q - 7.5)`.
                    let d = std / (32.0 * spread(16.0));
                    block[..2].copy_from_slice(&half(d));
                    block[2..4].copy_from_slice(&half(7.5 * d));
                    block[4..12].fill(32 | 2 << 6);
                    block[12..16].fill(0);
                }
                WeightFormat::Q6K => {
                    // All scales are 64: `64 d (q - 32)`.
                    let d = std / (64.0 * spread(64.0));
                    let d = if block[0] & 1 == 1 { -d } else { d };
                    block[192..208].fill(64);
                    block[208..].copy_from_slice(&half(d));
                }
                _ => {
                    let uniform = f64::from(u16::from_le_bytes([block[0], block[1]])) / 32_768.0 - 1.0;
                    let value = uniform * 3_f64.sqrt() * std;
                    block.copy_from_slice(&match format {
                        WeightFormat::F16 => half(value),
                        _ => bf16::from_f64(value).to_le_bytes(),
                    });
                }
            }
        }
        out.write_all(&bytes)?;
        left -= blocks;
    }
    Ok(())
}

fn metadata(arch: &Architecture) -> io::Result<Vec<(String, Field)>> {
    let mut fields = description(arch, "fabricated: random weights").map_err(wrong)?;
    fields.extend(tokenizer(arch.vocab).map(|(key, field)| (format!("tokenizer.{key}"), field)));
    Ok(fields)
}

/// A byte-level tokenizer without merges: a token a byte, two for chats, and as many that no text has as are left.
fn tokenizer(vocab: usize) -> [(&'static str, Field); 7] {
    const NORMAL: i32 = 1;
    const CONTROL: i32 = 3;
    const UNUSED: i32 = 5;
    // GPT-2 spells a byte that has no visible character of its own with one from U+0100 on.
    let visible = |byte: &u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let mut hidden = 256..;
    let spelt = (0..256_u32).map(|byte| if visible(&byte) { byte } else { hidden.next().unwrap_or(byte) });
    let mut tokens: Vec<String> = spelt.filter_map(char::from_u32).map(String::from).collect();
    let mut kinds = vec![NORMAL; tokens.len()];
    tokens.extend(["<|im_start|>", "<|im_end|>"].map(String::from));
    kinds.extend([CONTROL; 2]);
    let end = tokens.len() as u32 - 1;
    tokens.extend((tokens.len()..vocab).map(|index| format!("<|unused_{index}|>")));
    kinds.resize(tokens.len(), UNUSED);
    let template = "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n\
                    {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    [
        ("ggml.model", Field::Text("gpt2".into())),
        ("ggml.pre", Field::Text("gpt-2".into())),
        ("ggml.tokens", Field::Texts(tokens)),
        ("ggml.token_type", Field::Integers(kinds)),
        ("ggml.merges", Field::Texts(Vec::new())),
        ("ggml.eos_token_id", Field::Count(end)),
        ("chat_template", Field::Text(template.into())),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::family::mistral;
    use crate::model::gguf::GgufModel;
    use crate::model::open;
    use crate::weights::WeightSource;
    use crate::weights::gguf::Gguf;

    #[test]
    fn a_fabricated_file_of_every_shape_is_the_model_that_it_says() {
        for shape in PUBLISHED {
            // Two narrow blocks: names, wiring and metadata are those of the whole model.
            let arch = Architecture { vocab: 300, hidden: 512, intermediate: 544, ..shape.architecture(Some(2)) };
            let embedding_scale = shape.family.embedding_scale(arch.hidden);
            let arch = Architecture { heads: 4, kv_heads: 2, embedding_scale, ..arch };
            for format in FORMATS {
                let mut bytes = Vec::new();
                fabricate(&mut bytes, &arch, format, 1).unwrap();
                let file = std::sync::Arc::new(bytes);
                let model = GgufModel::new(Gguf::open(file, shape.name).unwrap()).unwrap();
                open::check(&model, &arch).unwrap();
                assert_eq!(model.architecture(), &arch, "{}", shape.name);
                let tokenizer = model.tokenizer().unwrap();
                assert_eq!(tokenizer.encode("a b").unwrap().len(), 3);
                let (first, ..) = &arch.linear_modules(1)[0];
                let matrix = model.read(&format!("{first}.weight")).unwrap().to_f32();
                let of =
                    |power: i32| matrix.iter().map(|&x| f64::from(x).powi(power)).sum::<f64>() / matrix.len() as f64;
                assert!(
                    of(1).abs() < 1e-3 && (of(2).sqrt() / STD - 1.0).abs() < 0.02,
                    "{format:?}: {} {}",
                    of(1),
                    of(2)
                );
            }
        }
    }

    #[test]
    fn windows_of_any_pattern_are_read_back_and_a_llama_with_one_is_a_mistral() {
        for (name, pattern) in [
            ("qwen3-0.6b", [false, false, true, true]),
            ("gemma3-270m", [true, false, true, false]),
            ("gemma3-270m", [true; 4]),
            ("phi4-mini", [true; 4]),
            ("llama3.1-8b", [true; 4]),
        ] {
            let shape = Shape::named(name).unwrap();
            let narrow = Architecture { vocab: 300, hidden: 512, intermediate: 544, ..shape.architecture(Some(4)) };
            let arch = Architecture {
                heads: 4,
                kv_heads: 2,
                embedding_scale: shape.family.embedding_scale(512),
                window: Some(Window { tokens: 64, pattern: pattern.to_vec() }),
                ..narrow
            };
            let mut bytes = Vec::new();
            fabricate(&mut bytes, &arch, FORMATS[0], 1).unwrap();
            let model = GgufModel::new(Gguf::open(std::sync::Arc::new(bytes), name).unwrap()).unwrap();
            let is_llama = arch.family == &llama::FAMILY;
            let arch = Architecture { family: if is_llama { &mistral::FAMILY } else { arch.family }, ..arch };
            assert_eq!(model.architecture(), &arch, "{name} {pattern:?}");
            open::check(&model, &arch).unwrap();
        }
    }

    #[test]
    fn published_shapes_have_the_parameters_that_their_names_say() {
        let billions = |name: &str| Shape::named(name).unwrap().architecture(None).parameter_count() as f64 / 1e9;
        for (name, published) in [
            ("qwen3-0.6b", 0.596),
            ("qwen3-1.7b", 1.72),
            ("qwen3-4b", 4.02),
            ("qwen3-8b", 8.19),
            ("qwen3-14b", 14.77),
            ("qwen3-32b", 32.76),
            ("qwen2.5-32b", 32.76),
            ("glm4-9b", 9.40),
            ("glm4-32b", 32.57),
            ("llama3.1-8b", 8.03),
            ("gemma3-270m", 0.268),
            ("gemma3-1b", 1.00),
            ("gemma3-4b", 3.88),
            ("phi4-mini", 3.84),
        ] {
            assert!((billions(name) / published - 1.0).abs() < 0.01, "{name}: {}", billions(name));
        }
    }
}
