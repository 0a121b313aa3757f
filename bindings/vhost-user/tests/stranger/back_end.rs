//! The back end that nobody here wrote.

use super::*;

/// The stranger's back end: what it is asked, it answers with what everybody knows.
pub(super) struct Stranger(pub(super) Arc<Things>);

impl VhostUserBackendReqHandlerMut for Stranger {
    fn set_owner(&mut self) -> StrangerResult<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> StrangerResult<()> {
        Ok(())
    }

    fn reset_device(&mut self) -> StrangerResult<()> {
        Ok(())
    }

    fn get_features(&mut self) -> StrangerResult<u64> {
        Ok(FEATURES)
    }

    fn set_features(&mut self, features: u64) -> StrangerResult<()> {
        assert_eq!(features, FEATURES);
        Ok(())
    }

    fn set_mem_table(
        &mut self,
        ctx: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy_listening: Option<bool>,
    ) -> StrangerResult<Option<Vec<VhostUserMemoryRegionBase>>> {
        assert_eq!((ctx.len(), files.len()), (8, 8));
        for (at, got) in ctx.iter().enumerate() {
            let want = region(at as u64);
            let want = (want.guest, want.size, want.user, want.offset);
            let got = *got;
            let (guest, size) = (got.guest_phys_addr, got.memory_size);
            assert_eq!((guest, size, got.user_addr, got.mmap_offset), want);
        }
        Ok(None)
    }

    fn set_vring_num(&mut self, _index: u32, num: u32) -> StrangerResult<()> {
        assert_eq!(num, 256);
        Ok(())
    }

    fn set_vring_addr(
        &mut self,
        _index: u32,
        flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        log: u64,
    ) -> StrangerResult<()> {
        assert_eq!(flags.bits(), 1);
        assert_eq!(
            (descriptor, available, used, log),
            (0x1000, 0x2000, 0x3000, 0x4000)
        );
        Ok(())
    }

    fn set_vring_base(&mut self, _index: u32, base: u32) -> StrangerResult<()> {
        assert_eq!(base, 0xfffe);
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> StrangerResult<VhostUserVringState> {
        Ok(VhostUserVringState::new(index, BASE))
    }

    fn set_vring_kick(&mut self, _index: u8, fd: Option<File>) -> StrangerResult<()> {
        assert!(fd.is_some());
        Ok(())
    }

    fn set_vring_call(&mut self, _index: u8, fd: Option<File>) -> StrangerResult<()> {
        assert!(fd.is_some());
        Ok(())
    }

    fn set_vring_err(&mut self, _index: u8, fd: Option<File>) -> StrangerResult<()> {
        assert!(fd.is_some());
        Ok(())
    }

    fn get_protocol_features(&mut self) -> StrangerResult<VhostUserProtocolFeatures> {
        Ok(VhostUserProtocolFeatures::from_bits(protocol().bits()).unwrap())
    }

    fn set_protocol_features(&mut self, features: u64) -> StrangerResult<()> {
        assert_eq!(features, protocol().bits());
        Ok(())
    }

    fn get_queue_num(&mut self) -> StrangerResult<u64> {
        Ok(QUEUES)
    }

    fn set_vring_enable(&mut self, _index: u32, _enable: bool) -> StrangerResult<()> {
        Ok(())
    }

    fn get_config(
        &mut self,
        _offset: u32,
        size: u32,
        _flags: VhostUserConfigFlags,
    ) -> StrangerResult<Vec<u8>> {
        Ok(vec![0xa5; size as usize])
    }

    fn set_config(
        &mut self,
        offset: u32,
        buf: &[u8],
        _flags: VhostUserConfigFlags,
    ) -> StrangerResult<()> {
        assert_eq!((offset, buf), (3, &[1, 2, 3][..]));
        Ok(())
    }

    fn set_backend_req_fd(&mut self, _backend: Backend) {}

    fn set_gpu_socket(&mut self, _gpu_backend: GpuBackend) -> StrangerResult<()> {
        Ok(())
    }

    fn get_shared_object(&mut self, uuid: VhostUserSharedMsg) -> StrangerResult<File> {
        assert_eq!(uuid.as_slice(), UUID);
        Ok(self.0.file(6).into())
    }

    fn get_inflight_fd(
        &mut self,
        _inflight: &VhostUserInflight,
    ) -> StrangerResult<(VhostUserInflight, File)> {
        let of = record();
        let record =
            VhostUserInflight::new(of.mmap_size, of.mmap_offset, of.num_queues, of.queue_size);
        Ok((record, self.0.file(4).into()))
    }

    fn set_inflight_fd(&mut self, got: &VhostUserInflight, _file: File) -> StrangerResult<()> {
        assert_eq!(got.mmap_size, record().mmap_size);
        Ok(())
    }

    fn get_max_mem_slots(&mut self) -> StrangerResult<u64> {
        Ok(SLOTS)
    }

    fn add_mem_region(
        &mut self,
        got: &VhostUserSingleMemoryRegion,
        _fd: File,
        _postcopy_listening: Option<bool>,
    ) -> StrangerResult<Option<VhostUserMemoryRegionBase>> {
        let user = got.user_addr;
        assert_eq!(user, region(8).user);
        Ok(None)
    }

    fn remove_mem_region(&mut self, got: &VhostUserSingleMemoryRegion) -> StrangerResult<()> {
        let guest = got.guest_phys_addr;
        assert_eq!(guest, region(8).guest);
        Ok(())
    }

    fn set_device_state_fd(
        &mut self,
        direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        _fd: File,
    ) -> StrangerResult<Option<File>> {
        let given = direction == VhostTransferStateDirection::LOAD;
        Ok(given.then(|| self.0.file(5).into()))
    }

    fn check_device_state(&mut self) -> StrangerResult<()> {
        Ok(())
    }

    fn get_shmem_config(&mut self) -> StrangerResult<VhostUserShMemConfig> {
        panic!("not negotiated")
    }

    fn set_log_base(&mut self, log: &VhostUserLog, _file: File) -> StrangerResult<()> {
        assert_eq!((log.mmap_size, log.mmap_offset), (0x8000, 0x1000));
        Ok(())
    }
}
