enable f16;
enable wgpu_cooperative_matrix;

// Matrices that a subgroup multiplies together, on devices that list 16 x 16 x 16 with f16 operands and f32 sums.
const TILE: u32 = 16u;

alias LeftMatrix = coop_mat16x16<f16, A>;
alias RightMatrix = coop_mat16x16<f16, B>;
alias SumMatrix = coop_mat16x16<f32, C>;

