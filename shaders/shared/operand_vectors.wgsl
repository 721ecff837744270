// Operands of a tiled product that are read four numbers at a time, of layouts as `matmul_vectors.wgsl` says. Four
// numbers of a row that is cut by the end of a view lie within what is stored; what does not belong to the view
// reaches only rows and columns past the end.

// Vector `at`, or zeros past the last term.
fn left_vector(at: u32, p: u32) -> vec4<f32> {
    if (p >= params.inner) {
        return vec4<f32>(0.0);
    }
    return left_values[at / 4u];
}

fn right_vector(at: u32, p: u32) -> vec4<f32> {
    if (p >= params.inner) {
        return vec4<f32>(0.0);
    }
    return right_values[at / 4u];
}

// Terms p .. p + 4 of four rows, a row each.
fn left_block(row: u32, p: u32, base: u32) -> mat4x4<f32> {
    let last = params.rows - 1u;
    if (params.left_step == 1u) {
        return mat4x4<f32>(
            left_vector(base + min(row, last) * params.left_row + p, p),
            left_vector(base + min(row + 1u, last) * params.left_row + p, p),
            left_vector(base + min(row + 2u, last) * params.left_row + p, p),
            left_vector(base + min(row + 3u, last) * params.left_row + p, p)
        );
    }
    let at = base + min(row, last) + p * params.left_step;
    return transpose(mat4x4<f32>(
        left_vector(at, p),
        left_vector(at + params.left_step, p + 1u),
        left_vector(at + 2u * params.left_step, p + 2u),
        left_vector(at + 3u * params.left_step, p + 3u)
    ));
}

// The same of four columns.
fn right_block(column: u32, p: u32, base: u32) -> mat4x4<f32> {
    let last = params.columns - 1u;
    if (params.right_step == 1u) {
        return mat4x4<f32>(
            right_vector(base + min(column, last) * params.right_column + p, p),
            right_vector(base + min(column + 1u, last) * params.right_column + p, p),
            right_vector(base + min(column + 2u, last) * params.right_column + p, p),
            right_vector(base + min(column + 3u, last) * params.right_column + p, p)
        );
    }
    let at = base + min(column, last) + p * params.right_step;
    return transpose(mat4x4<f32>(
        right_vector(at, p),
        right_vector(at + params.right_step, p + 1u),
        right_vector(at + 2u * params.right_step, p + 2u),
        right_vector(at + 3u * params.right_step, p + 3u)
    ));
}

