//! vDPA: a virtio data-path device is one contract, with pluggable parents behind it.
