//! An assembler for BPF: instructions by name, jumps by label (Documentation/bpf/standardization/instruction-set.rst).

/// A register: 0 is the result, 1 to 5 the arguments of calls, 6 to 9 survive calls, 10 is the stack's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reg(pub u8);

/// The register of results.
pub const R0: Reg = Reg(0);
/// The first argument, and a program's context when it starts.
pub const R1: Reg = Reg(1);
/// The second argument.
pub const R2: Reg = Reg(2);
/// The third argument.
pub const R3: Reg = Reg(3);
/// The fourth argument.
pub const R4: Reg = Reg(4);
/// The fifth argument.
pub const R5: Reg = Reg(5);
/// Kept over calls.
pub const R6: Reg = Reg(6);
/// Kept over calls.
pub const R7: Reg = Reg(7);
/// Kept over calls.
pub const R8: Reg = Reg(8);
/// Kept over calls.
pub const R9: Reg = Reg(9);
/// The end of the stack of 512 bytes, which is below it.
pub const FP: Reg = Reg(10);

/// Bytes of a load or a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// One byte.
    B = 0x10,
    /// Two.
    H = 0x08,
    /// Four.
    W = 0x00,
    /// Eight.
    D = 0x18,
}

/// When a jump is taken, comparing as unsigned numbers of 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum If {
    /// Equal.
    Eq = 0x10,
    /// Not equal.
    Ne = 0x50,
    /// Greater.
    Gt = 0x20,
    /// Some bit in common.
    Set = 0x40,
}

/// What is done with a register, in 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Addition.
    Add = 0x00,
    /// Bits in common.
    And = 0x50,
    /// Shifted up.
    Shl = 0x60,
    /// Copied.
    Mov = 0xb0,
}

// Classes, and where the second operand is (bpf_common.h).
const LDX_MEM: u8 = 0x61;
const ST_MEM: u8 = 0x62;
const STX_MEM: u8 = 0x63;
const ALU: u8 = 0x04;
const ALU64: u8 = 0x07;
const JMP: u8 = 0x05;
const BY_REG: u8 = 0x08;
const JA: u8 = 0x00;
const CALL: u8 = 0x80;
const EXIT: u8 = 0x90;
const LD_IMM64: u8 = 0x18;
/// The number of a load of 64 bits is the descriptor of a map: BPF_PSEUDO_MAP_FD.
const MAP_FD: u8 = 1;
/// A swap to the network's order of bytes, BPF_END | BPF_TO_BE.
const TO_BE: u8 = 0xd0 | BY_REG | ALU;

/// A place in a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(usize);

/// A program as it is written.
#[derive(Debug, Default)]
pub struct Assembler {
    code: Vec<[u8; 8]>,
    /// Where each label is, once it was placed.
    labels: Vec<Option<usize>>,
    /// Jumps, and where they lead.
    jumps: Vec<(usize, Label)>,
}

impl Assembler {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn put(&mut self, opcode: u8, to: Reg, from: Reg, offset: i16, number: i32) -> &mut Self {
        let ([a, b], [c, d, e, f]) = (offset.to_le_bytes(), number.to_le_bytes());
        self.code.push([opcode, from.0 << 4 | to.0, a, b, c, d, e, f]);
        self
    }

    /// A label that is placed later.
    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// The label is here.
    ///
    /// # Panics
    /// When it is somewhere already.
    pub fn place(&mut self, label: Label) -> &mut Self {
        let here = self.code.len();
        assert!(self.labels[label.0].replace(here).is_none(), "a label is at one place");
        self
    }

    /// `to op= number`.
    pub fn number(&mut self, op: Op, to: Reg, number: i32) -> &mut Self {
        self.put(op as u8 | ALU64, to, R0, 0, number)
    }

    /// `to op= from`.
    pub fn with(&mut self, op: Op, to: Reg, from: Reg) -> &mut Self {
        self.put(op as u8 | BY_REG | ALU64, to, from, 0, 0)
    }

    /// The lower 16 bits from the network's order of bytes to the machine's, the others cleared.
    pub fn from_be16(&mut self, to: Reg) -> &mut Self {
        self.put(TO_BE, to, R0, 0, 16)
    }

    /// `to = *(from + offset)`.
    pub fn load(&mut self, size: Size, to: Reg, from: Reg, offset: i16) -> &mut Self {
        self.put(LDX_MEM | size as u8, to, from, offset, 0)
    }

    /// `*(to + offset) = from`.
    pub fn store(&mut self, size: Size, to: Reg, offset: i16, from: Reg) -> &mut Self {
        self.put(STX_MEM | size as u8, to, from, offset, 0)
    }

    /// `*(to + offset) = number`.
    pub fn store_number(&mut self, size: Size, to: Reg, offset: i16, number: i32) -> &mut Self {
        self.put(ST_MEM | size as u8, to, R0, offset, number)
    }

    /// `to` is the map with this descriptor.
    pub fn map(&mut self, to: Reg, fd: i32) -> &mut Self {
        self.put(LD_IMM64, to, Reg(MAP_FD), 0, fd).put(0, R0, R0, 0, 0)
    }

    /// A jump, always.
    pub fn jump(&mut self, label: Label) -> &mut Self {
        self.jumps.push((self.code.len(), label));
        self.put(JMP | JA, R0, R0, 0, 0)
    }

    /// A jump if `left` compares so with a number.
    pub fn jump_if(&mut self, left: Reg, when: If, number: i32, label: Label) -> &mut Self {
        self.jumps.push((self.code.len(), label));
        self.put(JMP | when as u8, left, R0, 0, number)
    }

    /// A jump if `left` compares so with `right`.
    pub fn jump_if_reg(&mut self, left: Reg, when: If, right: Reg, label: Label) -> &mut Self {
        self.jumps.push((self.code.len(), label));
        self.put(JMP | when as u8 | BY_REG, left, right, 0, 0)
    }

    /// A helper of the kernel's, by its number (include/uapi/linux/bpf.h).
    pub fn call(&mut self, helper: i32) -> &mut Self {
        self.put(JMP | CALL, R0, R0, 0, helper)
    }

    /// The program ends, with the result in register 0.
    pub fn exit(&mut self) -> &mut Self {
        self.put(JMP | EXIT, R0, R0, 0, 0)
    }

    /// The instructions.
    ///
    /// # Panics
    /// When a jump leads to a label that is nowhere, or too far.
    #[must_use]
    pub fn finish(mut self) -> Vec<[u8; 8]> {
        for (at, label) in &self.jumps {
            let to = self.labels[label.0].expect("a label that a jump leads to is placed");
            let distance = to as isize - *at as isize - 1;
            let [low, high] = i16::try_from(distance).expect("a program is short").to_le_bytes();
            (self.code[*at][2], self.code[*at][3]) = (low, high);
        }
        self.code
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As clang writes them.
    #[test]
    fn instructions_have_their_bytes() {
        let mut code = Assembler::new();
        let out = code.label();
        code.number(Op::Mov, R0, 2)
            .load(Size::W, R7, R1, 4)
            .with(Op::Mov, R2, R7)
            .jump_if_reg(R2, If::Gt, R8, out)
            .from_be16(R3)
            .store_number(Size::D, FP, -16, 0)
            .map(R1, 5)
            .call(1)
            .place(out)
            .exit();
        let expected: &[[u8; 8]] = &[
            [0xb7, 0x00, 0, 0, 2, 0, 0, 0],
            [0x61, 0x17, 4, 0, 0, 0, 0, 0],
            [0xbf, 0x72, 0, 0, 0, 0, 0, 0],
            [0x2d, 0x82, 5, 0, 0, 0, 0, 0],
            [0xdc, 0x03, 0, 0, 16, 0, 0, 0],
            [0x7a, 0x0a, 0xf0, 0xff, 0, 0, 0, 0],
            [0x18, 0x11, 0, 0, 5, 0, 0, 0],
            [0; 8],
            [0x85, 0x00, 0, 0, 1, 0, 0, 0],
            [0x95, 0x00, 0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(code.finish(), expected);
    }

    #[test]
    #[should_panic(expected = "is placed")]
    fn a_label_that_is_nowhere_is_an_error() {
        let mut code = Assembler::new();
        let label = code.label();
        code.jump(label);
        let _ = code.finish();
    }
}
