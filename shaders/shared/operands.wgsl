// Operands of a tiled product that are read a number at a time: any layout.

// Four terms from p on of the row that begins at `at`; zeros past the last.
fn left_terms(at: u32, p: u32) -> vec4<f32> {
    let step = params.left_step;
    let first = at + p * step;
    if (p + 4u <= params.inner) {
        return vec4<f32>(
            left_values[first], left_values[first + step], left_values[first + 2u * step],
            left_values[first + 3u * step]
        );
    }
    var terms = vec4<f32>(0.0);
    if (p < params.inner) {
        terms.x = left_values[first];
    }
    if (p + 1u < params.inner) {
        terms.y = left_values[first + step];
    }
    if (p + 2u < params.inner) {
        terms.z = left_values[first + 2u * step];
    }
    return terms;
}

// The same of a column.
fn right_terms(at: u32, p: u32) -> vec4<f32> {
    let step = params.right_step;
    let first = at + p * step;
    if (p + 4u <= params.inner) {
        return vec4<f32>(
            right_values[first], right_values[first + step], right_values[first + 2u * step],
            right_values[first + 3u * step]
        );
    }
    var terms = vec4<f32>(0.0);
    if (p < params.inner) {
        terms.x = right_values[first];
    }
    if (p + 1u < params.inner) {
        terms.y = right_values[first + step];
    }
    if (p + 2u < params.inner) {
        terms.z = right_values[first + 2u * step];
    }
    return terms;
}

// Terms p .. p + 4 of four rows, a row each.
fn left_block(row: u32, p: u32, base: u32) -> mat4x4<f32> {
    let last = params.rows - 1u;
    return mat4x4<f32>(
        left_terms(base + min(row, last) * params.left_row, p),
        left_terms(base + min(row + 1u, last) * params.left_row, p),
        left_terms(base + min(row + 2u, last) * params.left_row, p),
        left_terms(base + min(row + 3u, last) * params.left_row, p)
    );
}

// The same of four columns.
fn right_block(column: u32, p: u32, base: u32) -> mat4x4<f32> {
    let last = params.columns - 1u;
    return mat4x4<f32>(
        right_terms(base + min(column, last) * params.right_column, p),
        right_terms(base + min(column + 1u, last) * params.right_column, p),
        right_terms(base + min(column + 2u, last) * params.right_column, p),
        right_terms(base + min(column + 3u, last) * params.right_column, p)
    );
}

