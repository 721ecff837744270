//! What each matrix of a GGUF file is stored as: one format for all, or a mix.

use crate::model::layout::is_head;
use crate::weights::WeightFormat;

/// How a model's matrices are stored in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipe {
    /// All in one format; but the head in Q6_K where the format is quantised and has fewer bits, as in llama.cpp's files.
    Uniform(WeightFormat),
    /// llama.cpp's `Q4_K_M`: Q4_K, with Q6_K where it helps most. The rules are those of `llama_tensor_get_type_impl` in
    /// llama.cpp's `src/llama-quant.cpp` (2026), without an importance matrix and for models without experts.
    Q4KM,
}

/// A matrix of a file.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    /// Its name in GGUF.
    pub name: &'a str,
    /// Elements of a row.
    pub row: usize,
    /// Blocks of the model.
    pub layers: usize,
    /// The model's head is its embedding.
    pub tied: bool,
}

impl Recipe {
    /// As the command calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uniform(format) => format.name(),
            Self::Q4KM => "Q4_K_M",
        }
    }

    /// Whether matrices of blocks have levels, so that it matters how they are rounded together
    /// ([`calibrate`](super::calibrated::calibrate)).
    pub fn has_levels(self) -> bool {
        match self {
            Self::Uniform(format) => format.levels().is_some(),
            Self::Q4KM => true,
        }
    }

    /// What a matrix is stored as. Where its rows are no whole blocks, what llama.cpp falls back to
    /// ([`WeightFormat::for_rows`]).
    pub fn format(self, matrix: Matrix) -> WeightFormat {
        let format = match self {
            Self::Uniform(format)
                if format.has_fewer_bits_than(WeightFormat::Q6K) && is_head(matrix.name, matrix.tied) =>
            {
                WeightFormat::Q6K
            }
            Self::Uniform(format) => format,
            Self::Q4KM if has_more_bits(matrix) => WeightFormat::Q6K,
            Self::Q4KM => WeightFormat::Q4K,
        };
        format.for_rows(matrix.row)
    }
}

/// The head, and values and the MLP's last matrix in the first and last eighth of the blocks and in every third between.
fn has_more_bits(Matrix { name, layers, tied, .. }: Matrix) -> bool {
    if is_head(name, tied) {
        return true;
    }
    let block = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
    let Some((Ok(layer), module)) = block.map(|(layer, module)| (layer.parse::<usize>(), module)) else { return false };
    let often = layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2;
    often && matches!(module, "attn_v.weight" | "ffn_down.weight")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_has_at_least_six_bits_and_everything_else_the_format_asked_for() {
        let format = |format, name, row, tied| Recipe::Uniform(format).format(Matrix { name, row, layers: 4, tied });
        use WeightFormat::{Bf16, F32, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q6K, Q8_0};
        for few in [Q4_0, Q4_1, Q5_0, Q5_1, Q4K] {
            assert_eq!(format(few, "output.weight", 512, false), Q6K, "{few:?}");
            assert_eq!(format(few, "token_embd.weight", 512, true), Q6K, "{few:?}");
            assert_eq!(format(few, "token_embd.weight", 576, true), Q8_0, "{few:?}: no whole blocks of 256");
            assert_eq!(format(few, "token_embd.weight", 512, false), few);
            assert_eq!(format(few, "blk.0.attn_v.weight", 512, true), few);
        }
        for many in [Q6K, Q8_0, Bf16, F32] {
            assert_eq!(format(many, "output.weight", 512, false), many);
        }
    }

    #[test]
    fn q4_k_m_gives_more_bits_to_the_layers_that_llama_cpp_gives_them_to() {
        let more = |module: &str, layers: usize| {
            let format = |layer| {
                let name = format!("blk.{layer}.{module}.weight");
                Recipe::Q4KM.format(Matrix { name: &name, row: 512, layers, tied: false })
            };
            (0..layers).filter(|&layer| format(layer) == WeightFormat::Q6K).collect::<Vec<_>>()
        };
        // Of 28 layers 0 to 2, 24 to 27 and every third between; of 30 as published files of llama.cpp have it.
        let of_28 = [0, 1, 2, 5, 8, 11, 14, 17, 20, 23, 24, 25, 26, 27];
        let of_30 = [0, 1, 2, 5, 8, 11, 14, 17, 20, 23, 26, 27, 28, 29];
        for module in ["attn_v", "ffn_down"] {
            assert_eq!(more(module, 28), of_28);
            assert_eq!(more(module, 30), of_30);
        }
        for module in ["attn_q", "attn_k", "attn_output", "ffn_gate", "ffn_up"] {
            assert!(more(module, 28).is_empty(), "{module}");
        }
        let format = |name, row, tied| Recipe::Q4KM.format(Matrix { name, row, layers: 30, tied });
        assert_eq!(format("output.weight", 512, false), WeightFormat::Q6K);
        assert_eq!(format("token_embd.weight", 512, false), WeightFormat::Q4K);
        assert_eq!(format("token_embd.weight", 512, true), WeightFormat::Q6K);
        // SmolLM2: rows of 576 are no whole blocks of 256.
        assert_eq!(format("token_embd.weight", 576, true), WeightFormat::Q8_0);
        assert_eq!(format("blk.0.attn_v.weight", 576, true), WeightFormat::Q8_0);
        assert_eq!(format("blk.3.attn_v.weight", 576, true), WeightFormat::Q5_0);
        assert_eq!(format("blk.3.ffn_down.weight", 1536, true), WeightFormat::Q4K);
    }
}
