// Threads need these headers, from the host of the built page too. Vite must not bundle the package anew while it develops:
// the package finds its worker by its own address.
const headers = { 'Cross-Origin-Opener-Policy': 'same-origin', 'Cross-Origin-Embedder-Policy': 'require-corp' }
export default {
  server: { headers },
  preview: { headers },
  worker: { format: 'es' },
  optimizeDeps: { exclude: ['unmask'] },
}
