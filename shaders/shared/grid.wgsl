// The linear number of a workgroup in a grid folded by `fold_workgroups` (src/graph/op.rs).
fn linear_workgroup(workgroup: vec3<u32>, workgroups: vec3<u32>) -> u32 {
    return workgroup.y * workgroups.x + workgroup.x;
}
