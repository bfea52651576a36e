"""The method: a clip's embedding, its profile's, how the two are pooled, fused and classified, and the losses."""
