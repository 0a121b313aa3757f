//! Definitions, and what becomes of those that are broken.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::thread;

use nix::unistd::{Uid, geteuid, setfsuid};

use vdpa_core::{ErrorKind, ParentError};

use super::*;

const HOME: &str = "/etc/mdevctl.d";

fn definition(name: &str, parent: &str) -> Definition {
    Definition::new(uuid(name).unwrap(), parent, "mtty-2", Start::Auto)
}

/// Does something as somebody for whom permissions hold, in a copy of theirs. Their user id, or `None`, which is said.
fn unprivileged(fixture: &Fixture, act: impl FnOnce() + Send) -> Option<u32> {
    if !geteuid().is_root() {
        act();
        return Some(geteuid().as_raw());
    }
    // Nobody's.
    let user = 65_534;
    if let Err(error) = chown(fixture.root(), Some(user), None) {
        let test = std::thread::current();
        let test = test.name().unwrap_or("definitions");
        println!("SKIP {test}: no second user here: {error} (run as another user)");
        return None;
    }
    thread::scope(|scope| {
        scope.spawn(|| {
            // This thread's alone, and with it root's rights to files.
            setfsuid(Uid::from_raw(user));
            act();
        });
    });
    Some(user)
}

fn allow(fixture: &Fixture, path: &str, mode: u32) {
    fs::set_permissions(fixture.path(path), Permissions::from_mode(mode)).unwrap();
}

fn names(fixture: &Fixture, path: &str) -> Vec<String> {
    let entries = fs::read_dir(fixture.path(path)).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_definition_outlives_whoever_made_it() {
    let fixture = Fixture::new();
    let definitions = fixture.host().definitions();
    assert!(definitions.all().unwrap().whole.is_empty());
    let mut first = definition(A, "mtty");
    first.attributes = vec![
        ("a".to_owned(), "1".to_owned()),
        ("a".to_owned(), "2".to_owned()),
    ];
    definitions.define(&first).unwrap();
    definitions.define(&definition(B, "0000:00:02.0")).unwrap();
    let defined = fixture.host().definitions().all().unwrap();
    let seen: Vec<_> = defined
        .whole
        .iter()
        .map(|one| (one.parent.as_str(), one.uuid.to_string()))
        .collect();
    assert_eq!(
        seen,
        [("0000:00:02.0", B.to_owned()), ("mtty", A.to_owned())]
    );
    assert_eq!(defined.whole[1].attributes, first.attributes);
    assert!(defined.broken.is_empty());
    assert_eq!(
        names(&fixture, "/etc/mdevctl.d/mtty"),
        [A],
        "nothing else is left"
    );

    let error = definitions.define(&first).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misuse);
    assert!(error.to_string().contains("defined already"), "{error}");
    first.start = Start::Manual;
    definitions.change(&first).unwrap();
    assert_eq!(
        definitions.of(first.uuid, None).unwrap().start,
        Start::Manual
    );
    definitions.undefine(first.uuid, Some("mtty")).unwrap();
    for error in [
        definitions.undefine(first.uuid, None).unwrap_err(),
        definitions.change(&first).unwrap_err(),
    ] {
        assert!(matches!(error, MdevError::NotDefined { .. }), "{error}");
    }
}

#[test]
fn one_that_two_parents_have_needs_a_parent() {
    let fixture = Fixture::new();
    let definitions = fixture.host().definitions();
    definitions.define(&definition(A, "one")).unwrap();
    definitions.define(&definition(A, "two")).unwrap();
    let error = definitions.of(uuid(A).unwrap(), None).unwrap_err();
    assert!(error.to_string().contains("one, two"), "{error}");
    assert_eq!(
        definitions
            .of(uuid(A).unwrap(), Some("two"))
            .unwrap()
            .parent,
        "two"
    );
    let error = definitions.of(uuid(A).unwrap(), Some("three")).unwrap_err();
    assert!(error.to_string().contains("for three"), "{error}");
}

#[test]
fn a_broken_file_is_named_with_its_line_and_kept() {
    let path = format!("{HOME}/mtty/{A}");
    let broken: [(&[u8], &str); 6] = [
        (b"", "line 1: EOF"),
        (
            b"{\n  \"mdev_type\": \"mtty-2\",\n  \"start\": 1\n}",
            "line 3: ",
        ),
        (
            b"{\n\n  \"mdev_type\": \"mtty-2\"\n}",
            "line 4: missing field `start`",
        ),
        (b"{\n\"start\": \"\xff\"}", "line 2: it is no text"),
        (b"\xff", "line 1: it is no text"),
        (
            b"{\"mdev_type\": \"\x1b[2J\", \"start\": \"auto\"}",
            "line 1: ",
        ),
    ];
    for (bytes, word) in broken {
        let fixture = Fixture::new();
        fixture.file(&path, bytes);
        let definitions = fixture.host().definitions();
        definitions.define(&definition(B, "mtty")).unwrap();
        let defined = definitions.all().unwrap();
        assert_eq!(defined.whole.len(), 1, "the others are told");
        let text = defined.broken[0].to_string();
        let of = format!("{A}, {word}");
        assert!(text.contains(&of) && !text.contains('\u{1b}'), "{text}");
        let whole = definition(A, "mtty");
        for error in [
            definitions.of(whole.uuid, None).unwrap_err(),
            definitions.change(&whole).unwrap_err(),
            definitions.undefine(whole.uuid, None).unwrap_err(),
            definitions.define(&whole).unwrap_err(),
        ] {
            assert_eq!(error.to_string(), text);
            assert_eq!(error.kind(), ErrorKind::Io);
        }
        assert_eq!(fs::read(fixture.path(&path)).unwrap(), bytes, "it is kept");
    }
}

#[test]
fn a_broken_file_is_not_repeated_as_a_whole() {
    let long = "x".repeat(1 << 19);
    for text in [
        format!(r#"{{"start": "auto", "attrs": "{long}"}}"#),
        format!(r#"{{"{long}": 1, "{long}": 2}}"#),
        format!(r#"{{"start": "{long}"}}"#),
    ] {
        let fixture = Fixture::new();
        fixture.file(&format!("{HOME}/mtty/{A}"), text);
        let defined = fixture.host().definitions().all().unwrap();
        let broken = &defined.broken[0];
        assert!(broken.why.len() < 300, "{} bytes", broken.why.len());
    }
}

#[test]
fn what_is_no_definition_is_passed_over_or_named() {
    let fixture = Fixture::new();
    fixture.file("/etc/mdevctl.d/scripts.d/notifiers/x", "");
    fixture.file(&format!("{HOME}/scripts.d/{A}"), "not a definition");
    fixture.file(&format!("{HOME}/readme"), "");
    fixture.file(&format!("{HOME}/mtty/{A}.json"), "");
    fixture.file(&format!("{HOME}/mtty/.{A}.4711"), "");
    fs::create_dir_all(fixture.path(&format!("{HOME}/mtty/{A}"))).unwrap();
    symlink(B, fixture.path(&format!("{HOME}/mtty/{B}"))).unwrap();
    let loud = "83B8F4F2-509F-382F-3C1E-E6BFE0FA1003";
    fixture.file(&format!("{HOME}/mtty/{loud}"), "{}");
    let endless = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1004";
    let file = fs::File::create(fixture.path(&format!("{HOME}/mtty/{endless}"))).unwrap();
    file.set_len(1 << 40).unwrap();
    let defined = fixture.host().definitions().all().unwrap();
    assert!(defined.whole.is_empty());
    let broken: Vec<_> = defined.broken.iter().map(ToString::to_string).collect();
    assert_eq!(broken.len(), 4, "{broken:?}");
    let says = |name: &str, word: &str| {
        let text = broken.iter().find(|text| text.contains(name)).unwrap();
        assert!(text.contains(word), "{text}");
    };
    says(loud, "rename it");
    says(A, "no regular file");
    says(endless, "longer than");
    says(B, B);
}

#[test]
fn a_parent_is_a_name_and_no_path() {
    let fixture = Fixture::new();
    let definitions = fixture.host().definitions();
    for name in ["", ".", "..", "../x", "/etc", "a/b", "scripts.d", "a\0b"] {
        let error = definitions.define(&definition(A, name)).unwrap_err();
        assert!(
            matches!(error, MdevError::ParentName { .. }),
            "{name}: {error}"
        );
        assert_eq!(error.kind(), ErrorKind::Misuse);
    }
    for name in ["", "..", "a/b"] {
        let mut nameless = definition(A, "mtty");
        nameless.kind = name.to_owned();
        let error = definitions.define(&nameless).unwrap_err();
        assert!(
            matches!(error, MdevError::KindName { .. }),
            "{name}: {error}"
        );
        assert_eq!(error.kind(), ErrorKind::Misuse);
    }
    assert!(!fixture.path("/etc").exists());
}

#[test]
fn a_link_that_leads_out_of_a_copy_is_not_written_through() {
    let outside = tempfile::tempdir().unwrap();
    for at in ["/etc", HOME, "/etc/mdevctl.d/mtty"] {
        let fixture = Fixture::new();
        let path = fixture.path(at);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(outside.path(), path).unwrap();
        let definitions = fixture.host().definitions();
        let error = definitions.define(&definition(A, "mtty")).unwrap_err();
        assert!(matches!(error, MdevError::Store { .. }), "{at}: {error}");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "{at}");
    }
}

#[test]
fn a_directory_that_cannot_be_written_says_so() {
    let fixture = Fixture::new();
    unprivileged(&fixture, || {
        fs::create_dir_all(fixture.path(HOME)).unwrap();
        allow(&fixture, HOME, 0o555);
        let error = fixture.host().definitions().define(&definition(A, "mtty"));
        let error = error.unwrap_err();
        assert!(error.to_string().contains("try as root"), "{error}");
        allow(&fixture, HOME, 0o755);
    });
}

#[test]
fn a_parent_whose_directory_cannot_be_listed_hides_nobody_else() {
    let fixture = Fixture::new();
    unprivileged(&fixture, || {
        let definitions = fixture.host().definitions();
        definitions.define(&definition(A, "closed")).unwrap();
        definitions.define(&definition(B, "mtty")).unwrap();
        let closed = format!("{HOME}/closed");
        allow(&fixture, &closed, 0);
        let defined = definitions.all().unwrap();
        assert_eq!(
            defined.whole,
            [definitions.of(uuid(B).unwrap(), None).unwrap()]
        );
        let [broken] = &defined.broken[..] else {
            panic!("{:?}", defined.broken);
        };
        assert!(broken.path.ends_with(&closed), "{broken}");
        // It may be there.
        let error = definitions.of(uuid(A).unwrap(), None).unwrap_err();
        assert!(
            matches!(&error, MdevError::Broken(of) if of == broken),
            "{error}"
        );
        // Who may not list may open all the same.
        allow(&fixture, &closed, 0o300);
        assert_eq!(
            definitions.of(uuid(A).unwrap(), None).unwrap().parent,
            "closed"
        );
        allow(&fixture, &closed, 0o755);
    });
}

#[test]
fn what_is_done_and_not_surely_on_the_disk_is_not_said_to_have_failed() {
    let fixture = Fixture::new();
    unprivileged(&fixture, || {
        let definitions = fixture.host().definitions();
        let folder = format!("{HOME}/mtty");
        fs::create_dir_all(fixture.path(&folder)).unwrap();
        // Names can be put in and taken out, and the directory cannot be opened to be written out.
        allow(&fixture, &folder, 0o300);
        let mut first = definition(A, "mtty");
        let unsure = |error: MdevError| {
            assert!(matches!(error, MdevError::NotOnDisk { .. }), "{error}");
            assert!(error.to_string().contains(A), "{error}");
        };
        // What cannot be listed is not defined in: it may have one under another name.
        let error = definitions.define(&first).unwrap_err();
        assert!(matches!(error, MdevError::Broken(_)), "{error}");
        allow(&fixture, &folder, 0o755);
        definitions.define(&first).unwrap();
        allow(&fixture, &folder, 0o300);
        first.start = Start::Manual;
        unsure(definitions.change(&first).unwrap_err());
        assert_eq!(
            definitions.of(first.uuid, None).unwrap().start,
            Start::Manual
        );
        unsure(definitions.undefine(first.uuid, Some("mtty")).unwrap_err());
        allow(&fixture, &folder, 0o755);
        assert_eq!(names(&fixture, &folder), [""; 0]);
    });
}

#[test]
fn a_definition_that_is_changed_stays_as_private_as_it_was() {
    let fixture = Fixture::new();
    let path = format!("{HOME}/mtty/{A}");
    let definitions = fixture.host().definitions();
    let mut first = definition(A, "mtty");
    definitions.define(&first).unwrap();
    let owner = match geteuid().is_root() {
        true => Some(65_534),
        false => {
            println!("the owner is not tried (run as root)");
            None
        }
    };
    chown(fixture.path(&path), owner, owner).unwrap();
    for mode in [0o600, 0o640, 0o666] {
        allow(&fixture, &path, mode);
        let before = fs::metadata(fixture.path(&path)).unwrap();
        first.attributes.push(("key".to_owned(), mode.to_string()));
        definitions.change(&first).unwrap();
        let after = fs::metadata(fixture.path(&path)).unwrap();
        let whose = |of: &fs::Metadata| (of.mode() & 0o7777, of.uid(), of.gid());
        assert_eq!(whose(&after), whose(&before));
        assert_ne!(after.ino(), before.ino(), "it was replaced as a whole");
    }
    assert_eq!(
        definitions.of(first.uuid, None).unwrap().attributes.len(),
        3
    );
}

#[test]
fn a_file_that_only_mdevctl_takes_for_a_definition_is_not_passed_by() {
    for name in [A.to_uppercase(), A.replace('-', ""), format!("{{{A}}}")] {
        let fixture = Fixture::new();
        let path = format!("{HOME}/mtty/{name}");
        fixture.file(&path, r#"{"mdev_type": "mtty-2", "start": "auto"}"#);
        let definitions = fixture.host().definitions();
        let whole = definition(A, "mtty");
        let all = definitions.all().unwrap();
        for error in [
            definitions.of(whole.uuid, None).unwrap_err(),
            definitions.of(whole.uuid, Some("mtty")).unwrap_err(),
            definitions.define(&whole).unwrap_err(),
            definitions.change(&whole).unwrap_err(),
            definitions.undefine(whole.uuid, None).unwrap_err(),
        ] {
            let text = error.to_string();
            assert!(text.contains(&name) && text.contains("rename it"), "{text}");
            assert!(matches!(error, MdevError::Broken(of) if of == all.broken[0]));
        }
        assert_eq!(names(&fixture, "/etc/mdevctl.d/mtty"), [name]);
        // Another parent's is another one.
        definitions.define(&definition(A, "other")).unwrap();
        assert_eq!(definitions.of(whole.uuid, None).unwrap().parent, "other");
    }
}

#[test]
fn many_that_define_one_device_leave_one_definition() {
    let fixture = Fixture::new();
    for round in 0..20 {
        let parent = format!("mtty{round}");
        let won: usize = thread::scope(|scope| {
            let writers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let definitions = fixture.host().definitions();
                        match definitions.define(&definition(A, &parent)) {
                            Ok(()) => 1,
                            Err(MdevError::Defined { .. }) => 0,
                            Err(error) => panic!("{error}"),
                        }
                    })
                })
                .collect();
            writers.into_iter().map(|one| one.join().unwrap()).sum()
        });
        assert_eq!(won, 1);
        assert_eq!(names(&fixture, &format!("{HOME}/{parent}")), [A]);
        let definitions = fixture.host().definitions();
        definitions.of(uuid(A).unwrap(), Some(&parent)).unwrap();
    }
}

#[test]
fn scripts_of_mdevctls_are_known_of() {
    let fixture = Fixture::new();
    let definitions = fixture.host().definitions();
    fs::create_dir_all(fixture.path("/etc/mdevctl.d/scripts.d/callouts")).unwrap();
    assert_eq!(definitions.scripts(), [""; 0].map(std::path::PathBuf::from));
    let ours = "/etc/mdevctl.d/scripts.d/callouts/ap-check";
    let system = "/usr/lib/mdevctl/scripts.d/notifiers/tell";
    fixture.file(ours, "");
    fixture.file(system, "");
    assert_eq!(
        definitions.scripts(),
        [fixture.path(ours), fixture.path(system)]
    );
    let elsewhere = Definitions::at(&fixture.path(HOME));
    assert_eq!(elsewhere.scripts(), [fixture.path(ours)]);
}
