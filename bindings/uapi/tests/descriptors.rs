//! Descriptors that are handed over, and are something else: each is refused by name.

use std::fs::File;
use std::os::fd::OwnedFd;

use vdpa_uapi::{Error, iommufd, vdpa, vduse, vhost};

/// Every wrapper's `from_fd`, with what it says of a wrong descriptor.
fn refusals(fd: impl Fn() -> OwnedFd) -> Vec<Error> {
    vec![
        vhost::Vdpa::from_fd(fd()).unwrap_err(),
        vduse::Control::from_fd(fd()).unwrap_err(),
        vduse::Device::from_fd(fd()).unwrap_err(),
        iommufd::Iommufd::from_fd(fd()).unwrap_err(),
    ]
}

#[test]
fn character_device_of_another_kind_is_refused_by_the_call_it_has_not() {
    let errors = refusals(|| File::open("/dev/null").unwrap().into());
    let calls = [
        "VHOST_VDPA_GET_DEVICE_ID",
        "VDUSE_GET_API_VERSION",
        "VDUSE_DEV_GET_FEATURES",
        "IOMMU_DESTROY",
    ];
    for (error, call) in errors.iter().zip(calls) {
        let said = error.to_string();
        assert!(
            matches!(error, Error::Foreign { call: c, .. } if *c == call),
            "{said}"
        );
        assert!(said.contains("ENOTTY"), "the errno by name: {said}");
    }
}

/// Devices that answer `EINVAL` and not `ENOTTY` to what they do not know.
#[test]
fn character_device_that_finds_every_call_invalid_is_no_vduse_device() {
    for path in ["/dev/random", "/dev/kvm", "/dev/userfaultfd"] {
        let Ok(file) = File::open(path) else {
            continue;
        };
        for error in refusals(|| file.try_clone().unwrap().into()) {
            assert!(matches!(error, Error::Foreign { .. }), "{path}: {error}");
        }
    }
}

#[test]
fn file_and_pipe_are_refused_before_any_call() {
    let file = || tempfile::tempfile().unwrap().into();
    let pipe = || std::io::pipe().unwrap().0.into();
    for error in refusals(file).into_iter().chain(refusals(pipe)) {
        assert!(
            matches!(error, Error::Foreign { call: "fstat", .. }),
            "{error}"
        );
    }
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for fd in [file(), pipe(), socket.into()] {
        let error = vdpa::Netlink::from_fd(fd).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Foreign {
                    call: "getsockopt SO_DOMAIN",
                    ..
                }
            ),
            "{error}"
        );
    }
}

#[test]
fn file_that_is_not_there_names_what_makes_it() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("none");
    for (error, maker) in [
        (vhost::Vdpa::open(&path).unwrap_err(), "modprobe vhost-vdpa"),
        (vduse::Control::open(&path).unwrap_err(), "modprobe vduse"),
        (vduse::Device::open(&path).unwrap_err(), "VDUSE_CREATE_DEV"),
        (
            iommufd::Iommufd::open(&path).unwrap_err(),
            "modprobe iommufd",
        ),
    ] {
        let said = error.to_string();
        assert!(said.contains("none: ") && said.contains(maker), "{said}");
    }
}
