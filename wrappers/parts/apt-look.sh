# What the sources have is looked up in memory: a look writes no cache.
readonly LOOK=(-o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=)
