use super::*;

const BUS: u32 = MEMORY | MASTER;

/// A function whose file is a plain one, in which configuration space begins: it has registers, and answers no call.
pub(crate) fn plain(translator: Translator) -> (Function, File) {
    let file = tempfile::tempfile().unwrap();
    file.set_len(4096).unwrap();
    let mut reply = Vec::new();
    // Read and write; 256 bytes from the first on.
    for word in [32u32, 3, 7, 0, 256, 0, 0, 0] {
        reply.extend(word.to_ne_bytes());
    }
    let config = Region::parse(&reply).unwrap();
    config
        .store(&file, COMMAND.into(), Width::U16, BUS)
        .unwrap();
    let name = "0000:01:00.1".to_owned();
    let function = Function {
        config,
        bars: Default::default(),
        marks: Marks::default(),
        resets: false,
        gone: AtomicBool::new(false),
        irqs: Irqs::none(&name),
        bells: Bells::default(),
        page: page_bytes(),
        watching: Mutex::default(),
        relay: Relay::new(),
        dma: Mappings::unlimited(&name, translator),
        device: Arc::new(file.try_clone().unwrap()),
        _keeper: None,
        _lease: None,
        name,
    };
    (function, file)
}

/// What was raised, and whether another sink could have been set meanwhile.
#[derive(Default)]
struct Sink {
    function: std::sync::OnceLock<std::sync::Weak<Function>>,
    free: AtomicBool,
}

impl EventSink for Sink {
    fn raise(&self, event: Event) {
        assert_eq!(event, Event::Gone);
        let function = self.function.get().unwrap().upgrade().unwrap();
        let free = function.watching.try_lock().is_ok();
        self.free.store(free, Ordering::Release);
    }
}

#[test]
fn who_is_told_that_a_function_is_gone_can_call_it() {
    let (function, _file) = plain(Translator::Owner);
    let function = Arc::new(function);
    let sink = Arc::new(Sink::default());
    sink.function.set(Arc::downgrade(&function)).unwrap();
    function.watch(sink.clone()).unwrap();
    function.remove();
    assert!(sink.free.load(Ordering::Acquire), "`watch` would hang");
}

#[test]
fn a_register_without_a_page_is_rung_by_call() {
    let (mut function, _file) = plain(Translator::Owner);
    assert!(function.rings_by_call(0, 0), "there is no such BAR");
    let mut reply = Vec::new();
    // To be mapped as a whole.
    for word in [32u32, 7, 0, 0, 0x2000, 0, 0, 0] {
        reply.extend(word.to_ne_bytes());
    }
    function.bars[0] = Region::parse(&reply).unwrap();
    assert!(!function.rings_by_call(0, 0x1000));
    // Mapped here or not: a trapped one has no such flag.
    reply[4] = 3;
    function.bars[0] = Region::parse(&reply).unwrap();
    assert!(function.rings_by_call(0, 0x1000));
}

#[test]
fn a_function_handed_in_is_off_the_bus_before_its_memory_goes() {
    let left = |translator| {
        let (function, file) = plain(translator);
        let config = function.config.clone();
        drop(function);
        config.load(&file, COMMAND.into(), Width::U16).unwrap()
    };
    let container = Translator::Container(tempfile::tempfile().unwrap());
    assert_eq!(left(container), MEMORY, "its memory is unmapped here");
    assert_eq!(left(Translator::Owner), BUS, "its memory is another's");
}
