//! nfnetlink for nftables: tables, chains, sets, elements and the few expressions we need.
//!
//! All changes of one batch are made at once or not at all.

use super::Batch;
use super::message::{CREATE, Message};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEWTABLE: u16 = 0;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const DELCHAIN: u16 = 5;
const NEWRULE: u16 = 6;
const DELRULE: u16 = 8;
const NEWSET: u16 = 9;
const DELSET: u16 = 11;
const NEWSETELEM: u16 = 12;
const DELSETELEM: u16 = 14;
/// Multicast group of changes, as a mask for bind.
pub(crate) const MONITOR_GROUPS: u32 = 1 << (7 - 1);

const FAMILY_INET: u8 = 1;
const LIST_ELEM: u16 = 1;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;

/// Registers of 4 bytes; there are 16 of them.
pub(crate) const REG: u32 = 8;
const REG_VERDICT: u32 = 0;

/// Address families within an `inet` table.
pub(crate) const NFPROTO_IPV4: u8 = 2;
pub(crate) const NFPROTO_IPV6: u8 = 10;
/// `fib … type` of the node's own addresses.
const ADDRTYPE_LOCAL: u32 = 2;

/// Where a base chain is called.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Hook {
    Prerouting,
    Output,
    Postrouting,
}

/// What packets' meta data a rule reads.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Meta {
    InName,
    OutName,
    Family,
    Protocol,
}

/// Data types by which `nft list` shows keys; the kernel only stores them.
pub(crate) const TYPE_IPV4: u32 = 7;
pub(crate) const TYPE_IPV6: u32 = 8;
pub(crate) const TYPE_PROTOCOL: u32 = 12;
pub(crate) const TYPE_SERVICE: u32 = 13;

/// A set, or a map if it has data.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SetSpec {
    pub(crate) name: &'static str,
    /// Types of the key's parts and the bytes of all parts together, each aligned to 4.
    pub(crate) key: (&'static [u32], u32),
    pub(crate) data: Option<(&'static [u32], u32)>,
}

/// One element of a set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) set: &'static str,
    pub(crate) key: Vec<u8>,
    pub(crate) data: Option<Vec<u8>>,
}

/// A batch of changes to one `inet` table.
#[derive(Debug)]
pub(crate) struct Change<'a> {
    batch: Batch,
    table: &'a str,
    sets: u32,
}

impl<'a> Change<'a> {
    pub(crate) fn new(table: &'a str) -> Self {
        let mut batch = Batch::new();
        batch.add(BATCH_BEGIN, 0, |m| {
            m.raw(&[0, 0, 0, SUBSYSTEM.to_be_bytes()[1]]);
        });
        Self {
            batch,
            table,
            sets: 0,
        }
    }

    pub(crate) fn finish(mut self) -> Batch {
        self.batch.add(BATCH_END, 0, |m| {
            m.raw(&[0, 0, 0, SUBSYSTEM.to_be_bytes()[1]]);
        });
        self.batch
    }

    fn message(&mut self, kind: u16, flags: u16, fill: impl FnOnce(&mut Message<'_>)) {
        let table = self.table;
        self.batch.add(SUBSYSTEM << 8 | kind, flags, |m| {
            m.raw(&[FAMILY_INET, 0, 0, 0]);
            m.text(1, table);
            fill(m);
        });
    }

    pub(crate) fn add_table(&mut self) {
        self.message(NEWTABLE, CREATE, |m| m.be32(2, 0));
    }

    /// Removes the table and all in it.
    pub(crate) fn delete_table(&mut self) {
        self.message(DELTABLE, 0, |_| {});
    }

    pub(crate) fn add_chain(&mut self, name: &str) {
        self.message(NEWCHAIN, CREATE, |m| m.text(3, name));
    }

    pub(crate) fn add_base_chain(&mut self, name: &str, kind: &str, hook: Hook, priority: i32) {
        let number = match hook {
            Hook::Prerouting => 0,
            Hook::Output => 3,
            Hook::Postrouting => 4,
        };
        self.message(NEWCHAIN, CREATE, |m| {
            m.text(3, name);
            m.nested(4, |h| {
                h.be32(1, number);
                h.be32(2, priority.cast_unsigned());
            });
            m.be32(5, 1);
            m.text(7, kind);
        });
    }

    pub(crate) fn add_set(&mut self, spec: &SetSpec) {
        const FLAG_MAP: u32 = 8;
        self.sets += 1;
        let id = self.sets;
        self.message(NEWSET, CREATE, |m| {
            m.text(2, spec.name);
            m.be32(3, if spec.data.is_some() { FLAG_MAP } else { 0 });
            m.be32(4, concatenated(spec.key.0));
            m.be32(5, spec.key.1);
            if let Some((types, length)) = spec.data {
                m.be32(6, concatenated(types));
                m.be32(7, length);
            }
            m.be32(10, id);
        });
    }

    pub(crate) fn add_elements(&mut self, elements: &[Element]) {
        self.elements(NEWSETELEM, CREATE, elements);
    }

    pub(crate) fn delete_elements(&mut self, elements: &[Element]) {
        self.elements(DELSETELEM, 0, elements);
    }

    /// One message per run of elements of one set, as an attribute holds at most 64 KiB.
    fn elements(&mut self, kind: u16, flags: u16, elements: &[Element]) {
        const PER_MESSAGE: usize = 400;
        let runs = elements.chunk_by(|a, b| a.set == b.set);
        for chunk in runs.flat_map(|run| run.chunks(PER_MESSAGE)) {
            let Some(first) = chunk.first() else { continue };
            self.message(kind, flags, |m| {
                m.text(2, first.set);
                m.nested(3, |list| {
                    for element in chunk {
                        list.nested(LIST_ELEM, |e| {
                            e.nested(1, |key| key.attr(DATA_VALUE, &element.key));
                            if let Some(data) = &element.data {
                                e.nested(2, |value| value.attr(DATA_VALUE, data));
                            }
                        });
                    }
                });
            });
        }
    }

    pub(crate) fn add_rule(&mut self, chain: &str, fill: impl FnOnce(&mut Rule<'_, '_>)) {
        const APPEND: u16 = super::message::APPEND;
        self.message(NEWRULE, CREATE | APPEND, |m| {
            m.text(2, chain);
            m.nested(4, |list| fill(&mut Rule { list }));
        });
    }
}

/// `nft` shows a key of several parts by their types, 6 bits each.
fn concatenated(types: &[u32]) -> u32 {
    types.iter().fold(0, |all, part| all << 6 | part)
}

/// The expressions of a rule.
#[derive(Debug)]
pub(crate) struct Rule<'a, 'b> {
    list: &'a mut Message<'b>,
}

impl Rule<'_, '_> {
    fn expression(&mut self, name: &str, fill: impl FnOnce(&mut Message<'_>)) -> &mut Self {
        self.list.nested(LIST_ELEM, |e| {
            e.text(1, name);
            e.nested(2, fill);
        });
        self
    }

    /// Loads meta data into a register.
    pub(crate) fn meta(&mut self, what: Meta, register: u32) -> &mut Self {
        let key = match what {
            Meta::InName => 6,
            Meta::OutName => 7,
            Meta::Family => 15,
            Meta::Protocol => 16,
        };
        self.expression("meta", |m| {
            m.be32(1, register);
            m.be32(2, key);
        })
    }

    fn compare(&mut self, operator: u32, register: u32, value: &[u8]) -> &mut Self {
        self.expression("cmp", |m| {
            m.be32(1, register);
            m.be32(2, operator);
            m.nested(3, |data| data.attr(DATA_VALUE, value));
        })
    }

    /// Goes on only if the register holds the value.
    pub(crate) fn equals(&mut self, register: u32, value: &[u8]) -> &mut Self {
        self.compare(0, register, value)
    }

    /// Goes on only if the packet is of this family.
    pub(crate) fn family(&mut self, family: u8) -> &mut Self {
        self.meta(Meta::Family, REG).equals(REG, &[family])
    }

    /// Loads bytes of the network header.
    pub(crate) fn network(&mut self, offset: u32, length: u32, register: u32) -> &mut Self {
        self.payload(1, offset, length, register)
    }

    /// Loads bytes of the transport header.
    pub(crate) fn transport(&mut self, offset: u32, length: u32, register: u32) -> &mut Self {
        self.payload(2, offset, length, register)
    }

    fn payload(&mut self, base: u32, offset: u32, length: u32, register: u32) -> &mut Self {
        self.expression("payload", |m| {
            m.be32(1, register);
            m.be32(2, base);
            m.be32(3, offset);
            m.be32(4, length);
        })
    }

    /// Keeps the bits of the mask.
    pub(crate) fn mask(&mut self, register: u32, mask: &[u8]) -> &mut Self {
        self.expression("bitwise", |m| {
            m.be32(1, register);
            m.be32(2, register);
            m.be32(3, u32::try_from(mask.len()).unwrap_or_default());
            m.nested(4, |data| data.attr(DATA_VALUE, mask));
            m.nested(5, |data| data.attr(DATA_VALUE, &vec![0; mask.len()]));
        })
    }

    /// Goes on only if the key from `register` on is in the set.
    pub(crate) fn in_set(&mut self, set: &str, register: u32) -> &mut Self {
        self.expression("lookup", |m| {
            m.text(1, set);
            m.be32(2, register);
        })
    }

    /// Goes on only if the map has the key; loads its data.
    pub(crate) fn map(&mut self, map: &str, register: u32, to: u32) -> &mut Self {
        self.expression("lookup", |m| {
            m.text(1, map);
            m.be32(2, register);
            m.be32(3, to);
        })
    }

    /// Goes on only if the destination is one of the node's own addresses.
    pub(crate) fn local_destination(&mut self) -> &mut Self {
        self.expression("fib", |m| {
            m.be32(1, REG);
            m.be32(2, 3);
            m.be32(3, 2);
        });
        self.equals(REG, &ADDRTYPE_LOCAL.to_ne_bytes())
    }

    /// Sends to the address and port in the registers.
    pub(crate) fn dnat(&mut self, family: u8, address: u32, port: u32) -> &mut Self {
        self.expression("nat", |m| {
            m.be32(1, 1);
            m.be32(2, family.into());
            m.be32(3, address);
            m.be32(5, port);
        })
    }

    /// Gives the packet an address of the interface it leaves by.
    pub(crate) fn masquerade(&mut self) -> &mut Self {
        self.expression("masq", |_| {})
    }

    pub(crate) fn drop(&mut self) -> &mut Self {
        self.verdict(0, None)
    }

    pub(crate) fn jump(&mut self, chain: &str) -> &mut Self {
        self.verdict(-3, Some(chain))
    }

    pub(crate) fn leave(&mut self) -> &mut Self {
        self.verdict(-5, None)
    }

    fn verdict(&mut self, code: i32, chain: Option<&str>) -> &mut Self {
        self.expression("immediate", |m| {
            m.be32(1, REG_VERDICT);
            m.nested(2, |data| {
                data.nested(DATA_VERDICT, |verdict| {
                    verdict.be32(1, code.cast_unsigned());
                    if let Some(chain) = chain {
                        verdict.text(2, chain);
                    }
                });
            });
        })
    }
}

/// The table a notification says something was removed from.
pub(crate) fn removed_from(kind: u16, payload: &[u8]) -> Option<&str> {
    const REMOVALS: [u16; 5] = [DELTABLE, DELCHAIN, DELRULE, DELSET, DELSETELEM];
    if kind >> 8 != SUBSYSTEM || !REMOVALS.contains(&(kind & 0xff)) {
        return None;
    }
    if payload.first() != Some(&FAMILY_INET) {
        return None;
    }
    super::Attrs::new(payload.get(4..)?).text(1)
}
