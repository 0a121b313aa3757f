//! Messages: what is made of one is taken for the same, and of what anybody sends nothing but that is made.

use std::os::fd::OwnedFd;

use nix::sys::stat::fstat;
use proptest::prelude::*;
use vdpa_vhost_user::payload::*;
use vdpa_vhost_user::{
    BackMessage, BackRequest, Error, Frame, FrontMessage, FrontRequest, HEADER_LEN, Header,
    MAX_PAYLOAD, Outgoing, ProtocolFeatures,
};

fn file() -> OwnedFd {
    tempfile::tempfile().unwrap().into()
}

/// As if it had been received.
fn frame(out: &Outgoing<'_>) -> Frame {
    let fds = out.fds.iter().map(|fd| fd.try_clone_to_owned().unwrap());
    let size = u32::try_from(out.payload.len()).unwrap();
    Frame {
        header: Header::request(out.request, false, size),
        payload: out.payload.clone(),
        fds: fds.collect(),
    }
}

fn raw(request: u32, payload: &[u8], fds: usize) -> Frame {
    Frame {
        header: Header::request(request, false, u32::try_from(payload.len()).unwrap()),
        payload: payload.to_vec(),
        fds: (0..fds).map(|_| file()).collect(),
    }
}

/// Which files they are, in order.
fn files(out: &Outgoing<'_>) -> Vec<(u64, u64)> {
    let of = |fd| fstat(fd).map(|stat| (stat.st_dev, stat.st_ino)).unwrap();
    out.fds.iter().map(of).collect()
}

fn state() -> impl Strategy<Value = VringState> {
    (any::<u32>(), any::<u32>()).prop_map(|(index, num)| VringState { index, num })
}

fn switch() -> impl Strategy<Value = VringState> {
    (any::<u32>(), 0..2u32).prop_map(|(index, num)| VringState { index, num })
}

fn vring_fd() -> impl Strategy<Value = VringFd> {
    (any::<u8>(), any::<bool>()).prop_map(|(index, with)| VringFd {
        index,
        fd: with.then(file),
    })
}

fn range() -> impl Strategy<Value = (u64, u64)> {
    any::<u64>().prop_flat_map(|start| (Just(start), 1..=(u64::MAX - start).max(1)))
}

fn region() -> impl Strategy<Value = MemoryRegion> {
    (any::<[u64; 3]>(), any::<u64>()).prop_map(|(starts, size)| {
        let most = u64::MAX - starts.iter().max().unwrap();
        let [guest, user, offset] = starts;
        MemoryRegion {
            guest,
            size: 1 + size % most.max(1),
            user,
            offset,
        }
    })
}

/// Up to 8 regions, one behind the other.
fn table() -> impl Strategy<Value = Vec<(MemoryRegion, OwnedFd)>> {
    prop::collection::vec((1..1u64 << 40, 0..1u64 << 40, any::<u32>()), 0..=MAX_TABLE).prop_map(
        |regions| {
            let (mut guest, mut user) = (0, 1 << 44);
            let place = |(size, gap, offset)| {
                let region = MemoryRegion {
                    guest: guest + gap,
                    size,
                    user: user + gap,
                    offset: u64::from(offset),
                };
                guest = region.guest + size;
                user = region.user + size;
                (region, file())
            };
            regions.into_iter().map(place).collect()
        },
    )
}

fn inflight() -> impl Strategy<Value = Inflight> {
    (range(), any::<u16>(), any::<u16>()).prop_map(|((mmap_offset, mmap_size), queues, size)| {
        Inflight {
            mmap_size,
            mmap_offset,
            num_queues: queues,
            queue_size: size,
        }
    })
}

fn iotlb() -> impl Strategy<Value = Iotlb> {
    let kind = prop::sample::select(vec![
        IotlbKind::Miss,
        IotlbKind::Update,
        IotlbKind::Invalidate,
        IotlbKind::AccessFail,
    ]);
    (region(), 0..4u8, kind).prop_map(|(region, access, kind)| Iotlb {
        iova: region.guest,
        size: region.size,
        user: region.user,
        access: Access::from_bits_retain(access),
        kind,
    })
}

fn config() -> impl Strategy<Value = Config> {
    let bytes = prop::collection::vec(any::<u8>(), 0..=MAX_CONFIG);
    (0..u32::MAX - 256, any::<u32>(), bytes).prop_map(|(offset, flags, bytes)| Config {
        offset,
        flags,
        bytes,
    })
}

fn addr() -> impl Strategy<Value = VringAddr> {
    (any::<u32>(), any::<bool>(), any::<[u64; 4]>()).prop_map(
        |(index, log, [descriptor, used, available, at])| VringAddr {
            index,
            flags: if log {
                VringFlags::LOG
            } else {
                VringFlags::empty()
            },
            descriptor,
            used,
            available,
            log: at,
        },
    )
}

fn transfer() -> impl Strategy<Value = DeviceState> {
    prop::sample::select(vec![Direction::Save, Direction::Load])
        .prop_map(|direction| DeviceState { direction })
}

/// Every message of a front end, with any numbers that it may have.
fn front_message() -> impl Strategy<Value = FrontMessage> {
    use FrontMessage as M;

    let bare = prop_oneof![
        Just(()).prop_map(|()| M::GetFeatures),
        Just(()).prop_map(|()| M::SetOwner),
        Just(()).prop_map(|()| M::ResetOwner),
        Just(()).prop_map(|()| M::GetProtocolFeatures),
        Just(()).prop_map(|()| M::GetQueueNum),
        Just(()).prop_map(|()| M::PostcopyAdvise),
        Just(()).prop_map(|()| M::PostcopyListen),
        Just(()).prop_map(|()| M::PostcopyEnd),
        Just(()).prop_map(|()| M::ResetDevice),
        Just(()).prop_map(|()| M::GetMaxMemSlots),
        Just(()).prop_map(|()| M::GetStatus),
        Just(()).prop_map(|()| M::CheckDeviceState),
        Just(()).prop_map(|()| M::GetShmemConfig),
    ];
    let numbers = prop_oneof![
        any::<u64>().prop_map(M::SetFeatures),
        any::<u64>()
            .prop_map(ProtocolFeatures::from_bits_retain)
            .prop_map(M::SetProtocolFeatures),
        any::<u64>().prop_map(M::SetLogAddress),
        any::<u64>().prop_map(M::NetSetMtu),
        any::<u64>().prop_map(M::CloseCryptoSession),
        any::<u8>().prop_map(M::SetStatus),
        any::<[u8; 6]>().prop_map(M::SendRarp),
        any::<[u8; 16]>().prop_map(M::GetSharedObject),
        prop::collection::vec(any::<u8>(), 0..MAX_PAYLOAD).prop_map(M::CreateCryptoSession),
    ];
    let queues = prop_oneof![
        state().prop_map(M::SetVringNum),
        addr().prop_map(M::SetVringAddr),
        state().prop_map(M::SetVringBase),
        state().prop_map(M::GetVringBase),
        state().prop_map(M::VringKick),
        switch().prop_map(M::SetVringEnable),
        switch().prop_map(M::SetVringEndian),
        vring_fd().prop_map(M::SetVringKick),
        vring_fd().prop_map(M::SetVringCall),
        vring_fd().prop_map(M::SetVringErr),
    ];
    let memory = prop_oneof![
        table().prop_map(M::SetMemTable),
        region().prop_map(|region| M::AddMemReg(region, file())),
        region().prop_map(M::RemMemReg),
        iotlb().prop_map(M::IotlbMsg),
        range().prop_map(|(offset, size)| M::SetLogBase(Log { size, offset }, file())),
    ];
    let rest = prop_oneof![
        Just(()).prop_map(|()| M::SetLogFd(file())),
        Just(()).prop_map(|()| M::SetBackendReqFd(file())),
        Just(()).prop_map(|()| M::GpuSetSocket(file())),
        inflight().prop_map(M::GetInflightFd),
        inflight().prop_map(|record| M::SetInflightFd(record, file())),
        transfer().prop_map(|state| M::SetDeviceStateFd(state, file())),
        config().prop_map(M::SetConfig),
        (0..=256u32, 0..u32::MAX - 256).prop_map(|(size, offset)| {
            M::GetConfig(ConfigSpan {
                offset,
                size,
                flags: 0,
            })
        }),
    ];
    prop_oneof![bare, numbers, queues, memory, rest]
}

fn back_message() -> impl Strategy<Value = BackMessage> {
    use BackMessage as M;

    let bytes = || prop::collection::vec(any::<u8>(), 0..64);
    prop_oneof![
        iotlb().prop_map(M::IotlbMsg),
        Just(()).prop_map(|()| M::ConfigChange),
        (any::<[u64; 3]>(), any::<bool>()).prop_map(|([vring, size, offset], with)| {
            let area = VringArea {
                vring,
                size,
                offset,
            };
            M::VringHostNotifier(area, with.then(file))
        }),
        state().prop_map(M::VringCall),
        state().prop_map(M::VringErr),
        any::<[u8; 16]>().prop_map(M::SharedObjectAdd),
        any::<[u8; 16]>().prop_map(M::SharedObjectRemove),
        any::<[u8; 16]>().prop_map(M::SharedObjectLookup),
        bytes().prop_map(|bytes| M::ShmemMap(bytes, file())),
        bytes().prop_map(M::ShmemUnmap),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_a_front_end_sends_is_what_a_back_end_takes(message in front_message()) {
        let sent = message.encode();
        let taken = FrontMessage::decode(frame(&sent)).unwrap();
        prop_assert_eq!(taken.request(), message.request());
        let again = taken.encode();
        prop_assert_eq!(&again.payload, &sent.payload);
        prop_assert_eq!(files(&again), files(&sent));
        let form = message.request().form();
        prop_assert!(form.payload.takes(sent.payload.len()), "{form:?}");
        prop_assert!((form.least_fds..=form.most_fds).contains(&sent.fds.len()), "{form:?}");
    }

    #[test]
    fn what_a_back_end_sends_is_what_a_front_end_takes(message in back_message()) {
        let sent = message.encode();
        let taken = BackMessage::decode(frame(&sent)).unwrap();
        prop_assert_eq!(taken.request(), message.request());
        let again = taken.encode();
        prop_assert_eq!(&again.payload, &sent.payload);
        prop_assert_eq!(files(&again), files(&sent));
    }

    /// Anything at all, mostly of a length that is right: it is refused, or it is that message again, padding aside.
    #[test]
    fn bytes_of_anybody_are_refused_or_understood(
        request in 0..50u32,
        flags in prop_oneof![9 => Just(1u32), 1 => any::<u32>()],
        payload in prop::collection::vec(prop_oneof![Just(0u8), Just(1), any::<u8>()], 0..300),
        len in prop::sample::select(vec![0usize, 8, 16, 20, 24, 26, 32, 40, 72, 268, 300]),
        fds in 0..10usize,
    ) {
        let mut payload = payload;
        payload.resize(len, 0);
        let mut came = raw(request, &payload, fds);
        came.header.flags = flags;
        if let Ok(message) = FrontMessage::decode(came) {
            prop_assert_eq!(flags & !8, 1);
            prop_assert_eq!(message.request().form().number, request);
            let sent = message.encode();
            let again = FrontMessage::decode(frame(&sent)).unwrap();
            prop_assert_eq!(again.encode().payload, sent.payload);
        }
        let mut came = raw(request, &payload, fds);
        came.header.flags = flags;
        if let Ok(message) = BackMessage::decode(came) {
            prop_assert_eq!(message.request().form().number, request);
        }
    }

    #[test]
    fn header_of_anybody_is_refused_or_what_it_says(bytes in any::<[u8; HEADER_LEN]>()) {
        if let Ok(header) = Header::decode(&bytes) {
            prop_assert_eq!(header.encode(), bytes);
            prop_assert!(header.size as usize <= MAX_PAYLOAD);
        }
    }

    #[test]
    fn regions_overlap_as_their_bytes_do(
        regions in prop::collection::vec((0..40u64, 1..12u64, 0..40u64), 0..6),
    ) {
        let regions: Vec<_> = regions
            .into_iter()
            .map(|(guest, size, user)| MemoryRegion { guest, size, user, offset: 0 })
            .collect();
        let bytes = |start, size| (0..64).filter(move |at| (start..start + size).contains(at));
        let met = |a: &MemoryRegion, b: &MemoryRegion| {
            bytes(a.guest, a.size).any(|at| bytes(b.guest, b.size).any(|other| at == other))
                || bytes(a.user, a.size).any(|at| bytes(b.user, b.size).any(|other| at == other))
        };
        let any = (0..regions.len())
            .any(|a| (a + 1..regions.len()).any(|b| met(&regions[a], &regions[b])));
        prop_assert_eq!(overlapping(&regions).is_some(), any);
    }
}

#[test]
fn numbers_are_those_of_the_table_and_of_nothing_else() {
    let front: Vec<u32> = FrontRequest::ALL.iter().map(|r| r.form().number).collect();
    assert_eq!(front, (1..=44).collect::<Vec<_>>());
    let back: Vec<u32> = BackRequest::ALL.iter().map(|r| r.form().number).collect();
    assert_eq!(back, (1..=10).collect::<Vec<_>>());
    for number in (0..64).chain([u32::MAX, 0x1_0001]) {
        let known = FrontRequest::from_number(number).map(|r| r.form().number);
        assert_eq!(known, front.contains(&number).then_some(number));
        let known = BackRequest::from_number(number).map(|r| r.form().number);
        assert_eq!(known, back.contains(&number).then_some(number));
    }
}

#[test]
fn index_of_a_kick_is_not_cut_to_eight_bits() {
    let error = FrontMessage::decode(raw(12, &0x1_0001u64.to_ne_bytes(), 1)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "VHOST_USER_SET_VRING_KICK: index is 0x10001: a queue of 0 to 255, and bit 8"
    );
}

#[test]
fn index_of_a_queue_is_all_of_its_bits() {
    let mut payload = 0x1_0001u32.to_ne_bytes().to_vec();
    payload.extend(256u32.to_ne_bytes());
    match FrontMessage::decode(raw(8, &payload, 0)).unwrap() {
        FrontMessage::SetVringNum(state) => assert_eq!(state.index, 0x1_0001),
        other => panic!("{other:?}"),
    }
}

#[test]
fn kick_says_twice_whether_it_has_a_descriptor_and_both_agree() {
    for (value, fds, ok) in [
        (0u64, 1, true),
        (0x100, 0, true),
        (0, 0, false),
        (0x100, 1, false),
    ] {
        let came = FrontMessage::decode(raw(12, &value.to_ne_bytes(), fds));
        assert_eq!(came.is_ok(), ok, "{value:#x} with {fds}: {came:?}");
    }
}

#[test]
fn table_has_as_many_files_as_regions() {
    for (regions, fds) in [(1, 0), (1, 2), (0, 1), (8, 7)] {
        let mut payload = (regions as u64).to_ne_bytes().to_vec();
        for at in 0..regions {
            for field in [at << 20, 1 << 20, at << 20, 0] {
                payload.extend((field as u64).to_ne_bytes());
            }
        }
        let error = FrontMessage::decode(raw(5, &payload, fds)).unwrap_err();
        assert!(matches!(error, Error::Fds { .. }), "{error}");
    }
}

#[test]
fn table_that_says_more_regions_than_it_has_is_refused() {
    for (said, has) in [(2u64, 1usize), (9, 8), (u64::from(u32::MAX), 1), (0, 1)] {
        let mut payload = said.to_ne_bytes().to_vec();
        payload.resize(8 + 32 * has, 1);
        let error = FrontMessage::decode(raw(5, &payload, has)).unwrap_err();
        let right = matches!(
            error,
            Error::Payload { .. } | Error::Value { .. } | Error::Range { .. }
        );
        assert!(right, "{error}");
    }
}

#[test]
fn ranges_that_wrap_are_refused_with_their_numbers() {
    let region = |guest: u64, size: u64, user: u64, offset: u64| {
        let mut payload = vec![0; 8];
        for field in [guest, size, user, offset] {
            payload.extend(field.to_ne_bytes());
        }
        FrontMessage::decode(raw(37, &payload, 1))
    };
    assert!(region(u64::MAX, 1, u64::MAX, u64::MAX).is_ok());
    for bad in [
        region(u64::MAX, 2, 0, 0),
        region(0, 2, u64::MAX, 0),
        region(0, 2, 0, u64::MAX),
        region(0, 0, 0, 0),
    ] {
        let error = bad.unwrap_err();
        assert!(matches!(error, Error::Range { .. }), "{error}");
    }
    let mut log = 0x2000u64.to_ne_bytes().to_vec();
    log.extend((u64::MAX - 0x1000).to_ne_bytes());
    assert_eq!(
        FrontMessage::decode(raw(6, &log, 1))
            .unwrap_err()
            .to_string(),
        "VHOST_USER_SET_LOG_BASE: log offset 0xffffffffffffefff and 0x2000 bytes from there on are no range"
    );
}

#[test]
fn structures_with_and_without_their_padding_are_the_same() {
    let record = [1u64.to_ne_bytes(), 2u64.to_ne_bytes()].concat();
    let short = [&record[..], &4u16.to_ne_bytes(), &256u16.to_ne_bytes()].concat();
    let long = [&short[..], &[0; 4]].concat();
    let read = |payload: &[u8]| match FrontMessage::decode(raw(31, payload, 0)).unwrap() {
        FrontMessage::GetInflightFd(inflight) => inflight,
        other => panic!("{other:?}"),
    };
    assert_eq!(read(&short), read(&long));
    assert_eq!(read(&short).queue_size, 256);

    let mut update = [
        4096u64.to_ne_bytes(),
        1u64.to_ne_bytes(),
        0u64.to_ne_bytes(),
    ]
    .concat();
    update.extend([3, 2]);
    let read = |payload: &[u8]| match FrontMessage::decode(raw(22, payload, 0)).unwrap() {
        FrontMessage::IotlbMsg(iotlb) => iotlb,
        other => panic!("{other:?}"),
    };
    let short = read(&update);
    update.resize(32, 0);
    assert_eq!(short, read(&update));
    assert_eq!(short.kind, IotlbKind::Update);
}

#[test]
fn configuration_is_as_long_as_it_says_or_longer() {
    let message = |size: u32, bytes: usize| {
        let mut payload = [0u32.to_ne_bytes(), size.to_ne_bytes(), 0u32.to_ne_bytes()].concat();
        payload.resize(12 + bytes, 7);
        FrontMessage::decode(raw(25, &payload, 0))
    };
    for (size, bytes, taken) in [
        (4, 4, Some(4)),
        (4, 256, Some(4)),
        (4, 3, None),
        (257, 256, None),
    ] {
        match message(size, bytes) {
            Ok(FrontMessage::SetConfig(config)) => assert_eq!(Some(config.bytes.len()), taken),
            other => assert!(taken.is_none(), "{size} in {bytes}: {other:?}"),
        }
    }
}

#[test]
fn descriptors_of_what_is_refused_are_closed() {
    let (watched, given) = std::os::unix::net::UnixStream::pair().unwrap();
    watched.set_nonblocking(true).unwrap();
    let mut came = raw(1, &[], 0);
    came.fds.push(given.into());
    FrontMessage::decode(came).unwrap_err();
    // The other end is gone if, and only if, nobody holds the descriptor any more.
    let read = std::io::Read::read(&mut &watched, &mut [0]).unwrap();
    assert_eq!(read, 0);
}

#[test]
fn request_with_the_flags_of_a_reply_is_none() {
    for (flags, part) in [(0x5u32, "make it a reply"), (0x11, "are not defined")] {
        let mut came = raw(1, &[], 0);
        came.header.flags = flags;
        let error = FrontMessage::decode(came).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
        assert!(error.in_step() && error.is_misbehaviour());
    }
}
