//! Definitions, and what becomes of those that are broken.

use std::fs;
use std::os::unix::fs::symlink;

use vdpa_core::{ErrorKind, ParentError};

use super::*;

const HOME: &str = "/etc/mdevctl.d";

fn definition(name: &str, parent: &str) -> Definition {
    Definition::new(uuid(name).unwrap(), parent, "mtty-2", Start::Auto)
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
        ] {
            assert_eq!(error.to_string(), text);
            assert_eq!(error.kind(), ErrorKind::Io);
        }
        let error = definitions.define(&whole).unwrap_err();
        assert!(matches!(error, MdevError::Defined { .. }), "{error}");
        assert_eq!(fs::read(fixture.path(&path)).unwrap(), bytes, "it is kept");
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
    if nix::unistd::geteuid().is_root() {
        println!("SKIP test: permissions hold for no root (run as another user)");
        return;
    }
    let fixture = Fixture::new();
    fs::create_dir_all(fixture.path(HOME)).unwrap();
    let mut about = fs::metadata(fixture.path(HOME)).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut about, 0o555);
    fs::set_permissions(fixture.path(HOME), about).unwrap();
    let error = fixture.host().definitions().define(&definition(A, "mtty"));
    let error = error.unwrap_err();
    assert!(error.to_string().contains("try as root"), "{error}");
}
