// How the matrix product of pairs is cut for this instruction set.
#pragma once
namespace smelt {
namespace {
constexpr int kTileM = 14, kTileVectors = 2;   // a tile of rows by vectors that stays in registers
constexpr int kTallM = kTileM, kTallVectors = kTileVectors;  // no other one
constexpr int kPanelsA = 12;                   // panels of A that meet one panel of B after the other
constexpr long kBlockK = 512, kBlockN = 1024;  // longest depth of a tile in pairs, columns that are packed together
constexpr long kBlockB = kBlockK * kBlockN;    // pairs of B that are packed together, whole blocks of the depth
}  // namespace
}  // namespace smelt
