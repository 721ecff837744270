//! Runs a WGSL kernel as our own compute pass on burn's wgpu device and queue.
//!
//! burn's own kernels may be compiled to WGSL, SPIR-V or MSL; ours are WGSL always and go through wgpu itself, so both
//! live on one queue and queue order is all the synchronisation there is: what burn has recorded is flushed, our pass is
//! submitted, burn goes on with the output tensor.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};

use burn::tensor::wgpu::WgpuSetup;
use burn_wgpu::{AutoCompiler, CubeTensor};
use cubecl::wgpu::WgpuServer;
use temper_shaders::{InOrder, Kernel, Storage, TypedKernel, Uniform, WORKGROUP_SIZE};

use crate::error::{Error, Result};

/// A wgpu device shared with burn, with the pipelines compiled so far. Cheap to clone.
#[derive(Clone)]
pub struct Gpu {
    setup: Arc<WgpuSetup>,
    pipelines: Pipelines,
    software: bool,
}

/// By stem and whether they are for software.
type Pipelines = Arc<Mutex<HashMap<(&'static str, bool), Arc<wgpu::ComputePipeline>>>>;

impl Gpu {
    /// Takes the handles that burn's runtime was initialised with. `software` where a processor plays the GPU.
    pub fn new(setup: WgpuSetup, software: bool) -> Self {
        Self { setup: Arc::new(setup), pipelines: Pipelines::default(), software }
    }

    /// Whether kernels are launched as suits software: row kernels narrow, matrix products our own.
    pub fn software(&self) -> bool {
        self.software
    }

    /// The same device, treated as software or as hardware.
    pub fn treated_as_software(&self, software: bool) -> Self {
        Self { software, ..self.clone() }
    }

    /// Bytes that one storage binding may hold.
    pub fn max_binding_bytes(&self) -> u64 {
        self.setup.device.limits().max_storage_buffer_binding_size
    }

    /// Runs `kernel` over `groups` workgroups, spread over two axes where one is too short.
    ///
    /// All tensors must be contiguous.
    ///
    /// # Errors
    /// [`Error::Limit`] where a binding is larger than the device allows, [`Error::Kernel`] where burn's queue fails.
    pub fn run<P: Uniform, B: Storage>(
        &self,
        kernel: &TypedKernel<P, B>,
        params: P,
        tensors: B::Of<&CubeTensor>,
        groups: u64,
    ) -> Result<()> {
        self.dispatch(kernel, bytemuck::bytes_of(&params), &tensors.in_order(), groups)
    }

    /// The bytes are those of the uniform's struct, the tensors in the order of the kernel's bindings.
    fn dispatch(&self, kernel: &Kernel, params: &[u8], tensors: &[&CubeTensor], groups: u64) -> Result<()> {
        if groups == 0 {
            return Ok(());
        }
        let failed = |message: String| Error::Kernel { name: kernel.stem.into(), message };
        let mut resources = Vec::with_capacity(tensors.len());
        for (tensor, name) in tensors.iter().zip(kernel.bindings) {
            let resource = tensor
                .client
                .get_resource::<WgpuServer<AutoCompiler>>(tensor.handle.clone())
                .map_err(|e| failed(format!("binding {name}: {e}")))?;
            let size = resource.resource().size;
            if size > self.max_binding_bytes() {
                return Err(Error::Limit {
                    what: format!("binding {name} of kernel {}", kernel.stem),
                    needed: size,
                    allowed: self.max_binding_bytes(),
                    adapter: self.setup.adapter.get_info().name,
                    advice: "use fewer tokens a batch ([run] batch_tokens)".into(),
                });
            }
            resources.push(resource);
        }
        if let Some(tensor) = tensors.first() {
            tensor.client.flush().map_err(|e| failed(e.to_string()))?;
        }

        let device = &self.setup.device;
        let pipeline = self.pipeline(kernel);
        let mut bytes = params.to_vec();
        bytes.resize(kernel.params_size(), 0);
        let uniform = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(kernel.stem),
            size: bytes.len() as u64,
            usage: wgpu::BufferUsages::UNIFORM,
            mapped_at_creation: true,
        });
        uniform.slice(..).get_mapped_range_mut().expect("mapped at creation").copy_from_slice(&bytes);
        uniform.unmap();

        let mut entries = vec![wgpu::BindGroupEntry { binding: 0, resource: uniform.as_entire_binding() }];
        for (index, resource) in resources.iter().enumerate() {
            let resource = resource.resource();
            entries.push(wgpu::BindGroupEntry {
                binding: index as u32 + 1,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer: &resource.buffer,
                    offset: resource.offset,
                    size: NonZeroU64::new(resource.size.next_multiple_of(4)),
                }),
            });
        }
        let bind_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(kernel.stem),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        let [x, y, z] = temper_shaders::fold_workgroups(groups)
            .ok_or_else(|| failed(format!("{groups} workgroups are more than a dispatch can hold")))?;
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some(kernel.stem) });
        {
            let mut pass = encoder
                .begin_compute_pass(&wgpu::ComputePassDescriptor { label: Some(kernel.stem), timestamp_writes: None });
            pass.set_pipeline(&pipeline);
            pass.set_bind_group(0, &bind_group, &[]);
            pass.dispatch_workgroups(x, y, z);
        }
        self.setup.queue.submit([encoder.finish()]);
        Ok(())
    }

    fn pipeline(&self, kernel: &Kernel) -> Arc<wgpu::ComputePipeline> {
        let mut pipelines = self.pipelines.lock().unwrap_or_else(|e| e.into_inner());
        let compile = || {
            let narrow = if self.software { kernel.narrow_size() } else { None };
            let constants: Vec<(&str, f64)> =
                narrow.iter().map(|&invocations| (WORKGROUP_SIZE, f64::from(invocations))).collect();
            let module = self.setup.device.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some(kernel.stem),
                source: wgpu::ShaderSource::Wgsl(kernel.source.into()),
            });
            Arc::new(self.setup.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(kernel.stem),
                layout: None,
                module: &module,
                entry_point: Some("main"),
                compilation_options: wgpu::PipelineCompilationOptions { constants: &constants, ..Default::default() },
                cache: None,
            }))
        };
        pipelines.entry((kernel.stem, self.software)).or_insert_with(compile).clone()
    }
}

/// A size or an index as a field of a uniform.
///
/// # Panics
/// Past 2^32: sizes come from tensors that fit one binding, which is less.
pub fn size(value: usize) -> u32 {
    u32::try_from(value).expect("a kernel size above 2^32")
}
