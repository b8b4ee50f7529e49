// warpgroup.h: matrix products of four warps together (wgmma), beside dev.h. They
// are of compute capability 9.0 alone, target sm_90a.
//
// A product runs on while its warps do other work. Its sums and its A may not be
// touched, and B must stay, until group_wait says that it is complete.
#pragma once
#include "dev.h"

// group_begin orders what the warps did to registers before the products that follow.
DEVICE void group_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
// group_commit ends a group of products; group_wait returns when all but the last n are complete.
DEVICE void group_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int n> DEVICE void group_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(n) : "memory"); }
// copies_to_products makes what this thread has in shared memory, its copies that
// it waited for too, visible to products after the next barrier.
DEVICE void copies_to_products() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// held keeps the compiler from moving where a value is made over what stands before and after.
DEVICE void held(uint32_t &v) { asm volatile("" : "+r"(v)::"memory"); }
DEVICE void held(float &v) { asm volatile("" : "+f"(v)::"memory"); }

// descriptor says where B is: (columns, 64 halves of K), a column 128 bytes, its
// 16-byte parts permuted by part ^ column % 8; 1024-byte aligned. 32 bytes
// further are the next 16 of K.
DEVICE uint64_t descriptor(uint32_t shared) {
	constexpr uint64_t swizzle = 1ull << 62, eight_columns = 1024 >> 4, unused = 1;
	return swizzle | eight_columns << 32 | unused << 16 | (shared & 0x3ffff) >> 4;
}

#define SUMS_0 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
#define SUMS_16 "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define SUMS_32 "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"
#define SUMS_48 "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define SUMS_64 "%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79"
#define SUMS_80 "%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"
#define SUMS_96 "%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111"
#define SUMS_112 "%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"
#define SUMS4(n) "+f"(d[n][0]), "+f"(d[n][1]), "+f"(d[n][2]), "+f"(d[n][3])
#define SUMS16(n) SUMS4(n), SUMS4(n + 1), SUMS4(n + 2), SUMS4(n + 3)
#define PRODUCT_OF(type, columns, sums, operands, ...) \
	asm volatile("wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32." #type "." #type " {" sums "}, " operands ", 1, 1, 1, 0;" \
	             : __VA_ARGS__ : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b) : "memory")
#define PRODUCT(columns, sums, operands, ...) \
	if constexpr (bf16) \
		PRODUCT_OF(bf16, columns, sums, operands, __VA_ARGS__); \
	else \
		PRODUCT_OF(f16, columns, sums, operands, __VA_ARGS__)

// product: D (64 x columns) += A (64 x 16) B (16 x columns) in f16 or bf16, sums in f32. Warp w of the
// group has rows 16*w.. as mma_f16 has its 16: a as there, d[n] for columns 8*n...
template <bool bf16> DEVICE void product(float (&d)[4][4], const uint32_t a[4], uint64_t b) {
	PRODUCT(32, SUMS_0, "{%16,%17,%18,%19}, %20", SUMS16(0));
}
template <bool bf16> DEVICE void product(float (&d)[8][4], const uint32_t a[4], uint64_t b) {
	PRODUCT(64, SUMS_0 "," SUMS_16, "{%32,%33,%34,%35}, %36", SUMS16(0), SUMS16(4));
}
template <bool bf16> DEVICE void product(float (&d)[16][4], const uint32_t a[4], uint64_t b) {
	PRODUCT(128, SUMS_0 "," SUMS_16 "," SUMS_32 "," SUMS_48, "{%64,%65,%66,%67}, %68", SUMS16(0), SUMS16(4), SUMS16(8), SUMS16(12));
}
template <bool bf16> DEVICE void product(float (&d)[32][4], const uint32_t a[4], uint64_t b) {
	PRODUCT(256, SUMS_0 "," SUMS_16 "," SUMS_32 "," SUMS_48 "," SUMS_64 "," SUMS_80 "," SUMS_96 "," SUMS_112, "{%128,%129,%130,%131}, %132",
	         SUMS16(0), SUMS16(4), SUMS16(8), SUMS16(12), SUMS16(16), SUMS16(20), SUMS16(24), SUMS16(28));
}
