// Number of this workgroup in a dispatch of up to two dimensions.
//
// WebGPU allows 65,535 workgroups along one axis, so a launch of more is folded: x = min(n, 65535), y = ceil(n / x).
// The fold may start workgroups past the last one; every kernel therefore compares this number, or the element index
// made from it, with the true count.
fn linear_workgroup(workgroup_id: vec3<u32>, workgroups: vec3<u32>) -> u32 {
    return workgroup_id.x + workgroup_id.y * workgroups.x;
}

