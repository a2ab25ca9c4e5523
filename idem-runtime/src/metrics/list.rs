//! A list that only grows, and that is read without a lock.

use std::sync::OnceLock;

/// Values by their names, which are few and known at compile time: the endpoints and the stores.
#[derive(Debug)]
pub(super) struct List<V>(OnceLock<Box<Node<V>>>);

#[derive(Debug)]
struct Node<V> {
    name: &'static str,
    value: V,
    next: List<V>,
}

impl<V> Default for List<V> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

impl<V> List<V> {
    /// The value of a name. `make` makes the value when the name is new.
    #[inline]
    pub(super) fn get(&self, name: &'static str, make: impl Fn(&'static str) -> V) -> &V {
        match self.0.get() {
            Some(node) if std::ptr::eq(node.name, name) => &node.value,
            _ => self.search(name, make),
        }
    }

    /// Not inlined, because most services have one store, and its calls find it at once.
    #[inline(never)]
    fn search(&self, name: &'static str, make: impl Fn(&'static str) -> V) -> &V {
        let mut list = self;
        loop {
            let node = list.0.get_or_init(|| {
                Box::new(Node {
                    name,
                    value: make(name),
                    next: Self::default(),
                })
            });
            // Equal names mostly have the same address, and comparing addresses takes less time.
            if std::ptr::eq(node.name, name) || node.name == name {
                return &node.value;
            }
            list = &node.next;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn each_name_has_one_value() {
        let list = List::default();
        let made = Cell::new(0);
        let get = |name: &'static str| {
            *list.get(name, |name| {
                made.set(made.get() + 1);
                name.len()
            })
        };
        let other_address: &'static str = Box::leak("desk::pay".to_owned().into_boxed_str());
        for (name, length) in [("desk::pay", 9), ("desk::refund", 12), (other_address, 9)] {
            assert_eq!(get(name), length);
        }
        assert_eq!(made.get(), 2);
    }
}
