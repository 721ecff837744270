enable f16;
enable wgpu_cooperative_matrix;

// Matrices that a subgroup multiplies together, on devices that list 8 x 8 x 8 with f16 operands and f32 sums.
const TILE: u32 = 8u;

alias LeftMatrix = coop_mat8x8<f16, A>;
alias RightMatrix = coop_mat8x8<f16, B>;
alias SumMatrix = coop_mat8x8<f32, C>;

