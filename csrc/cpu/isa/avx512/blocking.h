// How the matrix product is cut for this instruction set: a tile of kTileM rows by kTileVectors vectors
// stays in registers; kPanelsA panels of A are prepared together, and meet one panel of B after the other.
#pragma once
namespace smelt {
namespace {
constexpr int kTileM = 14;
constexpr int kTileVectors = 2;
constexpr int kPanelsA = 1;
constexpr long kBlockK = 384, kBlockN = 512;
constexpr long kBlockB = kBlockK * kBlockN;
}  // namespace
}  // namespace smelt
