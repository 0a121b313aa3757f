//! A process that has no descriptors left. Alone in its file: they are those of the whole process.

mod rig;

use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use rig::Served;
use vdpa_vhost_user::{Connection, Front, FrontMessage};

/// Another device's front end may have taken them all.
#[test]
fn a_front_end_for_which_there_is_no_descriptor_is_let_in_once_there_is() {
    let served = Served::new("sim:blk,size=1M");
    served.hears("waiting for a front end");
    let kind = SockType::Stream;
    let ours = socket(AddressFamily::Unix, kind, SockFlag::empty(), None).unwrap();
    let address = UnixAddr::new(&served.path).unwrap();
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 256, most).unwrap();
    let mut taken = Vec::new();
    let none_left = loop {
        match nix::unistd::dup(&ours) {
            Ok(fd) => taken.push(fd),
            Err(e) => break e,
        }
    };
    assert_eq!(none_left, Errno::EMFILE);

    connect(ours.as_raw_fd(), &address).unwrap();
    let said = served.hears("cannot reach");
    assert!(said.contains("Too many open files"), "{said}");
    drop(taken);
    let mut front = Front::new(Connection::new(UnixStream::from(ours)));
    assert!(front.value(&FrontMessage::GetFeatures).is_ok());
    served.end().unwrap();
}
