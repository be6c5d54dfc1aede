/** The recipes of the quickstart, by objective; the first is the usual one. */
export const quickstartRecipes = { hybrid: 'tiny-hybrid.yaml', diffusion: 'tiny-convert.yaml' } as const

export type QuickstartObjective = keyof typeof quickstartRecipes
export const quickstartObjectives = Object.keys(quickstartRecipes) as QuickstartObjective[]
