// Sum and maximum over a workgroup of WORKGROUP_SIZE (a power of two) invocations; every invocation gets the result.
// Both are trees, so the order of additions, and with it the last bit, never changes between runs.
// Call them from uniform control flow only: they hold barriers.
var<workgroup> reduced: array<f32, WORKGROUP_SIZE>;

fn workgroup_sum(lane: u32, value: f32) -> f32 {
    // Without this barrier a fast invocation overwrites the result of an earlier reduction that a slow one still reads.
    workgroupBarrier();
    reduced[lane] = value;
    for (var stride = WORKGROUP_SIZE / 2u; stride > 0u; stride = stride / 2u) {
        // Without this barrier a value is read before its owner has written it.
        workgroupBarrier();
        if (lane < stride) {
            reduced[lane] = reduced[lane] + reduced[lane + stride];
        }
    }
    // Without this barrier the others read element 0 before the last addition.
    workgroupBarrier();
    return reduced[0];
}

fn workgroup_max(lane: u32, value: f32) -> f32 {
    // Without this barrier a fast invocation overwrites the result of an earlier reduction that a slow one still reads.
    workgroupBarrier();
    reduced[lane] = value;
    for (var stride = WORKGROUP_SIZE / 2u; stride > 0u; stride = stride / 2u) {
        // Without this barrier a value is read before its owner has written it.
        workgroupBarrier();
        if (lane < stride) {
            reduced[lane] = max(reduced[lane], reduced[lane + stride]);
        }
    }
    // Without this barrier the others read element 0 before the last comparison.
    workgroupBarrier();
    return reduced[0];
}

