//! Models of published shapes with random weights, to prove and to measure with what nobody needs to download.
//!
//! The numbers are those of the models' `config.json` on the Hugging Face hub, by the name in [`PUBLISHED`].

use std::io::{self, Write};

use half::{bf16, f16};

use super::gguf::{Announced, Field, write};
use super::quantised::description;
use super::recipe::{Matrix, Recipe};
use crate::error::wrong;
use crate::model::architecture::Architecture;
use crate::model::family::{Family, glm4, llama, qwen2, qwen3};
use crate::model::gguf::{Stored, rope_divisors, stored_tensors};
use crate::model::layout::Kind;
use crate::model::rope::{Llama3Scaling, Rope, RopeScaling};
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
    intermediate: usize,
    vocab: usize,
    tied: bool,
    bias: bool,
    theta: f64,
    epsilon: f64,
    context: usize,
}

const QWEN3: Shape = Shape {
    name: "",
    source: "",
    family: &qwen3::FAMILY,
    hidden: 0,
    layers: 0,
    heads: 0,
    kv_heads: 8,
    intermediate: 0,
    vocab: 151_936,
    tied: false,
    bias: false,
    theta: 1e6,
    epsilon: 1e-6,
    context: 40_960,
};

const GLM4: Shape =
    Shape { family: &glm4::FAMILY, vocab: 151_552, theta: 10_000.0, epsilon: 1e-5, context: 32_768, ..QWEN3 };

/// Every shape. All have heads of 128.
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
        intermediate: 14_336, vocab: 128_256, theta: 500_000.0, epsilon: 1e-5, context: 131_072, ..QWEN3
    },
];

/// Width of every head.
const HEAD_DIM: usize = 128;
/// Standard deviation of the weights, as `initializer_range` of these models.
const STD: f64 = 0.02;

impl Shape {
    /// The shape of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        PUBLISHED.iter().find(|shape| shape.name == name)
    }

    /// As a description, with another number of blocks where `layers` is given.
    pub fn architecture(&self, layers: Option<usize>) -> Architecture {
        let llama3 = Llama3Scaling {
            factor: 8.0,
            low_frequency_factor: 1.0,
            high_frequency_factor: 4.0,
            original_context: 8192.0,
        };
        Architecture {
            family: self.family,
            vocab: self.vocab,
            hidden: self.hidden,
            layers: layers.unwrap_or(self.layers),
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: HEAD_DIM,
            intermediate: self.intermediate,
            norm_epsilon: self.epsilon,
            rope: Rope {
                theta: self.theta,
                rotary_dim: (HEAD_DIM as f64 * self.family.partial_rotary.unwrap_or(1.0)) as usize,
                interleaved: self.family.interleaved_rotary,
                scaling: std::ptr::eq(self.family, &llama::FAMILY).then_some(RopeScaling::Llama3(llama3)),
            },
            attention_bias: self.bias,
            tied_head: self.tied,
            context: self.context,
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
    if let Some((name, divisors)) = rope_divisors(arch) {
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
    use crate::model::gguf::GgufModel;
    use crate::model::open;
    use crate::weights::WeightSource;
    use crate::weights::gguf::Gguf;

    #[test]
    fn a_fabricated_file_of_every_shape_is_the_model_that_it_says() {
        for shape in PUBLISHED {
            // Two narrow blocks: names, wiring and metadata are those of the whole model.
            let arch = Architecture { vocab: 300, hidden: 512, intermediate: 544, ..shape.architecture(Some(2)) };
            let arch = Architecture { heads: 4, kv_heads: 2, ..arch };
            for format in FORMATS {
                let mut bytes = Vec::new();
                fabricate(&mut bytes, &arch, format, 1).unwrap();
                let file = std::sync::Arc::new(bytes);
                let model = GgufModel::new(Gguf::open(file, shape.name).unwrap()).unwrap();
                open::check(&model, &arch).unwrap();
                assert_eq!(model.architecture(), &arch, "{}", shape.name);
                let tokenizer = model.tokenizer().unwrap();
                assert_eq!(tokenizer.encode("a b").unwrap().len(), 3);
                let matrix = model.read("model.layers.1.self_attn.q_proj.weight").unwrap().to_f32();
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
        ] {
            assert!((billions(name) / published - 1.0).abs() < 0.01, "{name}: {}", billions(name));
        }
    }
}
